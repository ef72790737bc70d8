/* Whether a text is well-formed XML, as far as pictures need it. */
#ifndef REALIGN_TESTS_XML_H
#define REALIGN_TESTS_XML_H

/* NULL, or what is not well-formed: elements nest, attributes are quoted, & begins an entity, no coordinate is NaN. */
const char *test_xml_problem(const char *s);

#endif
