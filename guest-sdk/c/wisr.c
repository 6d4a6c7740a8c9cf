/* The page of wisr.h in the shape of the contract, guest-sdk/wit/page.wit. */

#include "wisr.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
#include "internal.h"

enum { PROPS, NOT_FOUND, REDIRECT };

void *wisr_room(size_t bytes) {
    void *room = malloc(bytes ? bytes : 1);
    if (!room) wisr_fail("out of memory: %zu bytes were wanted", bytes);
    return room;
}

char *wisr_copy(const void *text, size_t length) {
    char *copy = wisr_room(length + 1);
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

const char **wisr_add(const char **list, size_t count, const char *text) {
    const char **longer = realloc(list, (count + 1) * sizeof *list);
    if (!longer) wisr_fail("out of memory");
    longer[count] = text;
    return longer;
}

/* Not guest_string_set, which wants no const. */
guest_string_t wisr_view(const char *text) {
    return (guest_string_t){(uint8_t *)text, strlen(text)};
}

const char *wisr_given(const char *text, const char *what) {
    /* At address 0 of WebAssembly there is memory: it would read as an empty text. */
    if (!text) wisr_fail("%s is NULL, where a text is needed", what);
    return text;
}

static guest_string_t owned(const char *text) {
    return wisr_scalar(text, strlen(text));
}

void wisr_fail_at(const char *file, int line, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    __builtin_trap();
}

void wisr_log(wisr_level level, const char *format, ...) {
    va_list values;
    va_start(values, format);
    char *message;
    int length = vasprintf(&message, format, values);
    va_end(values);
    if (length < 0) wisr_fail("a line for the log cannot be written: %s", format);
    guest_string_t line = wisr_scalar(message, (size_t)length);
    wisr_page_host_log((uint8_t)level, &line);
}

const char *wisr_setting(const char *name) {
    guest_string_t key = owned(wisr_given(name, "wisr_setting: the name")), value;
    return wisr_page_host_setting(&key, &value) ? wisr_copy(value.ptr, value.len) : NULL;
}

void wisr_add_tag(const char *tag) {
    guest_string_t name = owned(wisr_given(tag, "wisr_add_tag: the tag"));
    wisr_page_host_tag(&name);
}

/* --- the context ------------------------------------------------------------------------------------ */

static bool is(const guest_string_t *text, const char *name) {
    return text->len == strlen(name) && !memcmp(text->ptr, name, text->len);
}

static const wisr_page_page_types_context_t *whole(const wisr_context *ctx) {
    return ctx->internal;
}

const char *wisr_param_at(const wisr_context *ctx, const char *name, size_t at) {
    for (size_t i = 0; i < whole(ctx)->params.len; i++) {
        const wisr_page_page_types_param_t *param = &whole(ctx)->params.ptr[i];
        if (is(&param->name, name) && at < param->values.len)
            return wisr_copy(param->values.ptr[at].ptr, param->values.ptr[at].len);
    }
    return NULL;
}

const char *wisr_param(const wisr_context *ctx, const char *name) {
    return wisr_param_at(ctx, name, 0);
}

const char *wisr_query(const wisr_context *ctx, const char *name) {
    for (size_t i = 0; i < whole(ctx)->query.len; i++) {
        const guest_tuple2_string_string_t *pair = &whole(ctx)->query.ptr[i];
        if (is(&pair->f0, name)) return wisr_copy(pair->f1.ptr, pair->f1.len);
    }
    return NULL;
}

static wisr_context context(const wisr_page_page_types_context_t *ctx) {
    return (wisr_context){
        .route = wisr_copy(ctx->route.ptr, ctx->route.len),
        .path = wisr_copy(ctx->path.ptr, ctx->path.len),
        .cause = (wisr_cause)ctx->cause,
        .internal = ctx,
    };
}

/* --- outcomes ---------------------------------------------------------------------------------------- */

wisr_outcome wisr_props(const char *json) {
    return (wisr_outcome){.kind = PROPS, .text = wisr_given(json, "wisr_props: the JSON")};
}

wisr_outcome wisr_not_found(void) {
    return (wisr_outcome){.kind = NOT_FOUND};
}

wisr_outcome wisr_redirect(const char *location) {
    return (wisr_outcome){.kind = REDIRECT, .text = wisr_given(location, "wisr_redirect: the location"), .status = 307};
}

wisr_outcome wisr_permanent_redirect(const char *location) {
    return (wisr_outcome){.kind = REDIRECT, .text = wisr_given(location, "wisr_permanent_redirect: the location"), .status = 308};
}

wisr_outcome wisr_revalidate(wisr_outcome outcome, uint32_t seconds) {
    outcome.freshness = WISR_PAGE_PAGE_TYPES_FRESHNESS_SECONDS;
    outcome.seconds = seconds;
    return outcome;
}

wisr_outcome wisr_never(wisr_outcome outcome) {
    outcome.freshness = WISR_PAGE_PAGE_TYPES_FRESHNESS_NEVER;
    return outcome;
}

wisr_outcome wisr_tag(wisr_outcome outcome, const char *tag) {
    outcome.tags = wisr_add(outcome.tags, outcome.tag_count++, wisr_given(tag, "wisr_tag: the tag"));
    return outcome;
}

bool exports_wisr_page_page_static_props(wisr_page_page_types_context_t *ctx,
                                         wisr_page_page_types_outcome_t *ret, guest_string_t *err) {
    (void)err;
    wisr_context of = context(ctx);
    wisr_outcome outcome = static_props(&of);
    if (outcome.kind != NOT_FOUND && !outcome.text)
        wisr_fail("static_props of page.c returned nothing: return what wisr_props, wisr_not_found or wisr_redirect makes");
    wisr_page_page_types_freshness_t freshness = {(uint8_t)outcome.freshness, {outcome.seconds}};
    ret->tag = (uint8_t)outcome.kind;
    /* The contract has a place for the tags of props alone. */
    for (size_t i = 0; outcome.kind != PROPS && i < outcome.tag_count; i++) wisr_add_tag(outcome.tags[i]);
    switch (outcome.kind) {
    case PROPS: {
        guest_string_t *tags = wisr_room(outcome.tag_count * sizeof *tags);
        for (size_t i = 0; i < outcome.tag_count; i++) tags[i] = owned(outcome.tags[i]);
        ret->val.props = (wisr_page_page_types_props_t){
            owned(outcome.text), freshness, {tags, outcome.tag_count}};
        break;
    }
    case NOT_FOUND:
        ret->val.not_found = freshness;
        break;
    default:
        ret->val.redirect =
            (wisr_page_page_types_redirect_t){owned(outcome.text), outcome.status, freshness};
    }
    return true;
}

/* --- documents ---------------------------------------------------------------------------------------- */

wisr_document wisr_text(const char *content_type, const char *text) {
    wisr_given(text, "the text of the page");
    wisr_document document = {.status = 200, .body = text, .length = strlen(text), .is_text = true};
    return wisr_header(document, "content-type", content_type);
}

wisr_document wisr_html(const char *html) {
    return wisr_text("text/html; charset=utf-8", html);
}

wisr_document wisr_bytes(const char *content_type, const void *bytes, size_t length) {
    if (!bytes && length) wisr_fail("wisr_bytes: %zu bytes at NULL", length);
    wisr_document document = {.status = 200, .body = bytes ? bytes : "", .length = length};
    return wisr_header(document, "content-type", content_type);
}

wisr_document wisr_status(wisr_document document, uint16_t status) {
    document.status = status;
    return document;
}

wisr_document wisr_header(wisr_document document, const char *name, const char *value) {
    wisr_given(name, "wisr_header: the name");
    wisr_given(value, "wisr_header: the value");
    document.headers = wisr_add(document.headers, document.header_count++, name);
    document.headers = wisr_add(document.headers, document.header_count++, value);
    return document;
}

static bool finish(wisr_document document, const char *function, wisr_page_page_types_document_t *ret) {
    if (!document.body)
        wisr_fail("%s of page.c returned nothing: return what wisr_html, wisr_text or wisr_bytes makes", function);
    size_t count = document.header_count / 2;
    ret->status = document.status;
    ret->headers.len = count;
    ret->headers.ptr = wisr_room(count * sizeof *ret->headers.ptr);
    for (size_t i = 0; i < count; i++) {
        ret->headers.ptr[i] = (guest_tuple2_string_string_t){owned(document.headers[2 * i]),
                                                             owned(document.headers[2 * i + 1])};
    }
    if (document.is_text) {
        ret->body.tag = WISR_PAGE_PAGE_TYPES_BODY_TEXT;
        ret->body.val.text = wisr_scalar(document.body, document.length);
    } else {
        ret->body.tag = WISR_PAGE_PAGE_TYPES_BODY_BYTES;
        ret->body.val.bytes =
            (guest_list_u8_t){(uint8_t *)wisr_copy(document.body, document.length), document.length};
    }
    return true;
}

bool exports_wisr_page_page_render(wisr_page_page_types_context_t *ctx, guest_string_t *data,
                                   wisr_page_page_types_document_t *ret, guest_string_t *err) {
    (void)err;
    wisr_context of = context(ctx);
    return finish(render(&of, wisr_copy(data->ptr, data->len)), "render", ret);
}

/* It reloads by itself: the host starts making the page together with the shell, and a page without scripts
 * has no other way to find out that it is done. */
__attribute__((weak)) wisr_document shell(const wisr_context *ctx) {
    (void)ctx;
    return wisr_html(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">"
        "<meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"refresh\" content=\"1\">"
        "<title>Loading…</title></head><body><main>"
        "<p role=\"status\">This page is being made. It shows by itself in a moment.</p>"
        "<p><a href=\"\">Show it now</a></p></main></body></html>");
}

bool exports_wisr_page_paths_shell(wisr_page_page_types_context_t *ctx, wisr_page_page_types_document_t *ret,
                                   guest_string_t *err) {
    (void)err;
    wisr_context of = context(ctx);
    return finish(shell(&of), "shell", ret);
}

/* --- paths ---------------------------------------------------------------------------------------------- */

struct wisr_paths {
    exports_wisr_page_paths_list_list_param_t list;
    wisr_fallback fallback;
};

wisr_paths *wisr_paths_new(wisr_fallback fallback) {
    wisr_paths *paths = wisr_room(sizeof *paths);
    *paths = (wisr_paths){.fallback = fallback};
    return paths;
}

static void add_value(exports_wisr_page_paths_list_param_t *params, const char *name, const char *value) {
    wisr_page_page_types_param_t *last = params->len ? &params->ptr[params->len - 1] : NULL;
    if (!last || !is(&last->name, name)) {
        params->ptr = realloc(params->ptr, (params->len + 1) * sizeof *params->ptr);
        last = params->ptr ? &params->ptr[params->len++] : NULL;
        if (!last) wisr_fail("out of memory");
        *last = (wisr_page_page_types_param_t){.name = owned(name)};
    }
    last->values.ptr = realloc(last->values.ptr, (last->values.len + 1) * sizeof *last->values.ptr);
    if (!last->values.ptr) wisr_fail("out of memory");
    last->values.ptr[last->values.len++] = owned(value);
}

void wisr_path(wisr_paths *paths, ...) {
    exports_wisr_page_paths_list_param_t params = {0};
    va_list values;
    va_start(values, paths);
    for (const char *name; (name = va_arg(values, const char *));) {
        const char *value = va_arg(values, const char *);
        if (!value) wisr_fail("wisr_path: the name \"%s\" has no value", name);
        add_value(&params, name, value);
    }
    va_end(values);
    paths->list.ptr = realloc(paths->list.ptr, (paths->list.len + 1) * sizeof *paths->list.ptr);
    if (!paths->list.ptr) wisr_fail("out of memory");
    paths->list.ptr[paths->list.len++] = params;
}

__attribute__((weak)) wisr_paths *static_paths(void) {
    return wisr_paths_new(WISR_BLOCKING);
}

bool exports_wisr_page_paths_static_paths(exports_wisr_page_paths_path_list_t *ret, guest_string_t *err) {
    (void)err;
    wisr_paths *paths = static_paths();
    if (!paths) wisr_fail("static_paths of page.c returned NULL: return what wisr_paths_new makes");
    *ret = (exports_wisr_page_paths_path_list_t){paths->list, (uint8_t)paths->fallback};
    return true;
}
