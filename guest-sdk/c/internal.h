/* What the files of the SDK share; not for pages. */
#ifndef WISR_INTERNAL_H
#define WISR_INTERNAL_H

#include "guest.h"

void *wisr_room(size_t bytes);
/* A copy with a zero byte behind it. */
char *wisr_copy(const void *text, size_t length);
/* The list with another text at its end. */
const char **wisr_add(const char **list, size_t count, const char *text);
guest_string_t wisr_view(const char *text);
/* The same as UTF-8, which the contract's strings are: bytes that are none become U+FFFD, as on the web. All text
 * that leaves the page comes from here. */
guest_string_t wisr_scalar(const char *text, size_t length);
/* A text that must be there; `what` says which it is. */
const char *wisr_given(const char *text, const char *what);

#endif
