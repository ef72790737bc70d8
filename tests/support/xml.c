#include "xml.h"

#include <stdbool.h>
#include <string.h>

enum { DEPTH = 64 };

const char *test_xml_problem(const char *s)
{
    char open[DEPTH][32];
    int depth = 0;
    if (strstr(s, "nan") || strstr(s, "inf\"") || strstr(s, "inf,")) return "a number that is none";
    while (*s) {
        if (*s == '&' && strncmp(s, "&lt;", 4) && strncmp(s, "&gt;", 4) && strncmp(s, "&amp;", 5) && strncmp(s, "&quot;", 6) &&
            strncmp(s, "&#39;", 5))
            return "& without an entity";
        if (*s != '<') {
            s++;
            continue;
        }
        bool closing = s[1] == '/';
        s += 1 + closing;
        size_t n = strcspn(s, " />\n");
        if (n == 0 || n >= sizeof open[0]) return "a tag without a name";
        char name[32];
        memcpy(name, s, n);
        name[n] = '\0';
        for (s += n; *s && *s != '>'; s++) {
            if (*s == '<') return "< within a tag";
            if (*s != '"') continue;
            s = strchr(s + 1, '"');
            if (!s) return "an open quote";
        }
        if (!*s) return "an open tag";
        bool alone = s[-1] == '/';
        s++;
        if (closing) {
            if (depth == 0 || strcmp(open[--depth], name) != 0) return "an end without its beginning";
        } else if (!alone) {
            if (depth == DEPTH) return "too deep";
            strcpy(open[depth++], name);
        }
    }
    return depth ? "an element that is not closed" : NULL;
}
