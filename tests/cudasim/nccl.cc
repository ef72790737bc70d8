/* NCCL's transfers over MPI. Everything runs when it is called, or when its group ends; a send waits for its receive, so that calls in an order in which NCCL
 * would hang hang here too. A receive of another size than its send is an error, which NCCL would not notice. */
#include "nccl.h"
#include "execution.h"
#include "memory.h"

#include <mpi.h>
#include <vector>

struct ncclComm {
    int rank, tag;
    std::vector<int> world_rank;
};

namespace
{

struct transfer {
    bool sends;
    char *memory;
    size_t bytes;
    int peer;
    ncclComm_t comm;
    std::vector<char> staged;
};

enum { FIRST_TAG = 1000, TAGS = 30000 };

std::vector<transfer> &group = *new std::vector<transfer>;
int depth;
const char *last_error = "";

ncclResult_t refuse(ncclResult_t result, const char *why)
{
    last_error = why;
    return result;
}

struct name { /* of a set of peers: the rank that made it up, and its number there */
    int root, number;
};

ncclResult_t run_group()
{
    std::vector<MPI_Request> requests;
    for (transfer &t : group) {
        if (t.sends) {
            cudasim::check_device_range("ncclSend from", t.memory, t.bytes);
            cudasim::device_memory_opened open;
            t.staged.assign(t.memory, t.memory + t.bytes);
        } else {
            cudasim::check_device_range("ncclRecv to", t.memory, t.bytes);
            t.staged.resize(t.bytes + 1); /* room to see a longer one */
        }
    }
    for (transfer &t : group) {
        MPI_Request request;
        int peer = t.comm->world_rank[(size_t)t.peer];
        if (t.sends) {
            MPI_Issend(t.staged.data(), (int)t.bytes, MPI_BYTE, peer, t.comm->tag, MPI_COMM_WORLD, &request);
        } else {
            MPI_Irecv(t.staged.data(), (int)t.staged.size(), MPI_BYTE, peer, t.comm->tag, MPI_COMM_WORLD, &request);
        }
        requests.push_back(request);
    }
    std::vector<MPI_Status> statuses(requests.size());
    MPI_Waitall((int)requests.size(), requests.data(), statuses.data());
    for (size_t i = 0; i < group.size(); i++) {
        transfer &t = group[i];
        if (t.sends) continue;
        int count;
        MPI_Get_count(&statuses[i], MPI_BYTE, &count);
        if ((size_t)count != t.bytes) cudasim::fail("ncclRecv of %zu bytes from rank %d, which sent %d", t.bytes, t.peer, count);
        cudasim::device_memory_opened open;
        memcpy(t.memory, t.staged.data(), t.bytes);
    }
    group.clear();
    return ncclSuccess;
}

ncclResult_t add(bool sends, void *memory, size_t count, int peer, ncclComm_t comm)
{
    if (!comm) return refuse(ncclInvalidArgument, "no communicator");
    if (peer < 0 || (size_t)peer >= comm->world_rank.size()) return refuse(ncclInvalidArgument, "no such peer");
    group.push_back({sends, (char *)memory, count, peer, comm, {}});
    return depth ? ncclSuccess : run_group();
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int made;
    name n = {0, made++};
    MPI_Comm_rank(MPI_COMM_WORLD, &n.root);
    memset(id, 0, sizeof *id);
    memcpy(id->internal, &n, sizeof n);
    return ncclSuccess;
}

/* Every rank tells the one that made the name where it is, and gets the list of all. */
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    name n;
    int world;
    memcpy(&n, id.internal, sizeof n);
    MPI_Comm_rank(MPI_COMM_WORLD, &world);
    ncclComm_t made = new ncclComm{rank, FIRST_TAG + (n.root * 997 + n.number) % TAGS, std::vector<int>((size_t)ranks, -1)};
    if (world == n.root) {
        made->world_rank[(size_t)rank] = world;
        for (int i = 1; i < ranks; i++) {
            int of[2];
            MPI_Recv(of, 2, MPI_INT, MPI_ANY_SOURCE, made->tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            made->world_rank[(size_t)of[0]] = of[1];
        }
        for (int i = 0; i < ranks; i++) {
            if (i != rank)
                MPI_Send(made->world_rank.data(), ranks, MPI_INT, made->world_rank[(size_t)i], made->tag, MPI_COMM_WORLD);
        }
    } else {
        int of[2] = {rank, world};
        MPI_Send(of, 2, MPI_INT, n.root, made->tag, MPI_COMM_WORLD);
        MPI_Recv(made->world_rank.data(), ranks, MPI_INT, n.root, made->tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    *comm = made;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *error)
{
    *error = ncclSuccess;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : result == ncclInvalidArgument ? "invalid argument" : "internal error";
}

const char *ncclGetLastError(ncclComm_t)
{
    return last_error;
}

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    return --depth ? ncclSuccess : run_group();
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t)
{
    return add(true, const_cast<void *>(from), count, peer, comm);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t)
{
    return add(false, to, count, peer, comm);
}

} // extern "C"
