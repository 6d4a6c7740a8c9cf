/* Write pages for wisr in C.
 *
 * A page is a file page.c that defines static_props and render, and for a dynamic route perhaps
 * static_paths and shell. Other .c files beside it belong to it.
 *
 * Each page is made in a fresh sandbox that is thrown away afterwards: free() is a waste of time, and
 * nothing here has to be freed. Texts are UTF-8 and end with a zero byte; bytes that are no UTF-8 leave the page
 * as U+FFFD, as on the web. */
#ifndef WISR_H
#define WISR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WISR_FORMAT(text) __attribute__((format(printf, text, text + 1)))

/* --- which page is being made ------------------------------------------------------------------ */

typedef enum { WISR_BUILD, WISR_FIRST_REQUEST, WISR_STALE, WISR_ON_DEMAND, WISR_DRAFT } wisr_cause;

typedef struct {
    const char *route; /* "/posts/[id]" */
    const char *path;  /* "/posts/1" */
    wisr_cause cause;  /* why it is made now */
    const void *internal;
} wisr_context;

/* A part of the path: [id], or part number `at` of [...slug]. NULL where there is none. */
const char *wisr_param(const wisr_context *ctx, const char *name);
const char *wisr_param_at(const wisr_context *ctx, const char *name, size_t at);

/* The first value of a query parameter that the route's configuration allows, or NULL. */
const char *wisr_query(const wisr_context *ctx, const char *name);

/* --- what a page answers before anything is rendered --------------------------------------------- */

typedef struct {
    int kind;
    const char *text; /* the props as JSON, or where to */
    uint16_t status;
    int freshness;
    uint32_t seconds;
    const char **tags;
    size_t tag_count;
} wisr_outcome;

/* The page exists; render gets this JSON. Readers can see it, at /_wisr/data/<path>.json. */
wisr_outcome wisr_props(const char *json);
/* There is no such page: 404. It is looked for again after 60 s, or what wisr_revalidate says. */
wisr_outcome wisr_not_found(void);
/* The page is elsewhere, for now (307) or for good (308). */
wisr_outcome wisr_redirect(const char *location);
wisr_outcome wisr_permanent_redirect(const char *location);

/* How long it stays fresh; without either, as wisr.toml says. */
wisr_outcome wisr_revalidate(wisr_outcome outcome, uint32_t seconds);
wisr_outcome wisr_never(wisr_outcome outcome);
/* A name under which the page, the 404 or the redirect can be revalidated together with others. */
wisr_outcome wisr_tag(wisr_outcome outcome, const char *tag);

/* --- the rendered page -------------------------------------------------------------------------- */

typedef struct {
    uint16_t status;
    const char *body;
    size_t length;
    bool is_text;
    const char **headers; /* names and values by turns */
    size_t header_count;
} wisr_document;

wisr_document wisr_html(const char *html);
wisr_document wisr_text(const char *content_type, const char *text);
wisr_document wisr_bytes(const char *content_type, const void *bytes, size_t length);
wisr_document wisr_status(wisr_document document, uint16_t status);
wisr_document wisr_header(wisr_document document, const char *name, const char *value);

/* --- which pages are made ahead of time ---------------------------------------------------------- */

typedef enum {
    WISR_NOT_FOUND, /* any other path is a 404 */
    WISR_BLOCKING,  /* is made when it is asked for */
    WISR_SHELL,     /* shows the shell while it is made */
} wisr_fallback;

typedef struct wisr_paths wisr_paths;

wisr_paths *wisr_paths_new(wisr_fallback fallback);
/* Lists a page by names and values, then NULL; a name of [...slug] stands before each of its parts:
 * wisr_path(paths, "lang", "en", "slug", "a", "slug", "b", NULL). */
void wisr_path(wisr_paths *paths, ...) __attribute__((sentinel));

/* --- what you define ------------------------------------------------------------------------------ */

wisr_outcome static_props(const wisr_context *ctx);
wisr_document render(const wisr_context *ctx, const char *props);
/* Without it, nothing is listed and every page is made when it is asked for. */
wisr_paths *static_paths(void);
/* Without it, a plain page that reloads itself. */
wisr_document shell(const wisr_context *ctx);

/* --- what a page may ask of the host ---------------------------------------------------------------- */

/* A setting of this route from wisr.toml, or NULL. */
const char *wisr_setting(const char *name);

/* Tags what is being made, whatever comes of it: the same as wisr_tag, from wherever the data is read. */
void wisr_add_tag(const char *tag);

typedef enum { WISR_TRACE, WISR_DEBUG, WISR_INFO, WISR_WARN, WISR_ERROR } wisr_level;

/* A line in the server's log. */
void wisr_log(wisr_level level, const char *format, ...) WISR_FORMAT(2);

/* The page cannot be made: the last good one stays up, and the incident has these words, the file and the
 * line. Does not return. */
#define wisr_fail(...) wisr_fail_at(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void wisr_fail_at(const char *file, int line, const char *format, ...) WISR_FORMAT(3);

typedef struct {
    const char *url;
    const char *method;         /* NULL is GET */
    const char *const *headers; /* names and values by turns, then NULL; or NULL */
    const void *body;
    size_t length;
} wisr_request;

typedef struct {
    uint16_t status;
    char *body; /* a zero byte follows */
    size_t length;
    const char **headers;
    size_t header_count;
    const char *error; /* why no answer came, or NULL; then status is 0 */
} wisr_response;

/* Fetches a URL and waits for the answer. When none comes, that is wisr_fail. */
wisr_response wisr_fetch(const char *url);
/* Sends any request and waits. The caller looks at `error`. */
wisr_response wisr_send(const wisr_request *request);
/* The first value of a header of the answer, in any case, or NULL. */
const char *wisr_response_header(const wisr_response *response, const char *name);

/* --- text ------------------------------------------------------------------------------------------ */

/* A text that grows. Begin with `wisr_buffer out = {0};`, read out.text. */
typedef struct {
    char *text;
    size_t length, room;
} wisr_buffer;

/* NULL adds nothing, here and escaped; as JSON it is null. */
void wisr_put(wisr_buffer *out, const char *text);
void wisr_putf(wisr_buffer *out, const char *format, ...) WISR_FORMAT(2);
/* With & < > " ' escaped: what comes from elsewhere into HTML. */
void wisr_put_escaped(wisr_buffer *out, const char *text);
/* In quotes, as JSON. */
void wisr_put_json(wisr_buffer *out, const char *text);

/* The bytes of a file, taken in when the page is compiled: WISR_EMBED(frame, "../_layout/frame.html")
 * outside of functions, then `frame` is a text that ends with a zero byte. */
#define WISR_EMBED(name, path)                                                                          \
    extern const char name[];                                                                           \
    __asm__(".section .rodata." #name ",\"\",@\n.globl " #name "\n" #name ":\n.incbin \"" path          \
            "\"\n.int8 0\n.size " #name ", . - " #name "\n.text\n")

/* --- JSON, read where it stands ---------------------------------------------------------------------- */

/* The value at a JSON pointer (RFC 6901), such as "/posts/0/title"; "" is the whole. NULL where there is
 * none. What is not JSON is wisr_fail. */
const char *wisr_json(const char *json, const char *pointer);
/* The elements of an array or the values of an object:
 * for (const char *post = wisr_json_first(posts); post; post = wisr_json_next(post)) */
const char *wisr_json_first(const char *value);
const char *wisr_json_next(const char *value);
/* A string with its escapes undone; NULL for any other value. */
const char *wisr_json_text(const char *value);
/* A number; 0 for any other value. */
double wisr_json_number(const char *value);

#endif
