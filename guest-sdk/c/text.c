/* wisr_buffer, and JSON read where it stands. */

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "wisr.h"

static void reserve(wisr_buffer *out, size_t more) {
    size_t wanted = out->length + more + 1;
    if (wanted <= out->room) return;
    out->room = wanted < 256 ? 256 : wanted * 2;
    out->text = realloc(out->text, out->room);
    if (!out->text) wisr_fail("out of memory: %zu bytes were wanted", out->room);
}

static void put(wisr_buffer *out, const char *text, size_t length) {
    reserve(out, length);
    memcpy(out->text + out->length, text, length);
    out->length += length;
    out->text[out->length] = 0;
}

void wisr_put(wisr_buffer *out, const char *text) {
    if (!text) text = "";
    put(out, text, strlen(text));
}

void wisr_putf(wisr_buffer *out, const char *format, ...) {
    va_list values, again;
    va_start(values, format);
    va_copy(again, values);
    int length = vsnprintf(NULL, 0, format, values);
    va_end(values);
    if (length < 0) wisr_fail("wisr_putf cannot write \"%s\"", format);
    reserve(out, (size_t)length);
    vsnprintf(out->text + out->length, (size_t)length + 1, format, again);
    out->length += (size_t)length;
    va_end(again);
}

void wisr_put_escaped(wisr_buffer *out, const char *text) {
    wisr_put(out, "");
    for (; text && *text; text++) {
        switch (*text) {
        case '&': wisr_put(out, "&amp;"); break;
        case '<': wisr_put(out, "&lt;"); break;
        case '>': wisr_put(out, "&gt;"); break;
        case '"': wisr_put(out, "&quot;"); break;
        case '\'': wisr_put(out, "&#39;"); break;
        default: put(out, text, 1);
        }
    }
}

void wisr_put_json(wisr_buffer *out, const char *text) {
    if (!text) {
        wisr_put(out, "null");
        return;
    }
    wisr_put(out, "\"");
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') wisr_putf(out, "\\%c", byte);
        else if (byte < ' ') wisr_putf(out, "\\u%04x", byte);
        else put(out, text, 1);
    }
    wisr_put(out, "\"");
}

/* How many bytes from here on are one character or, as WHATWG's decoder takes them, one mistake: negative. */
static int character(const unsigned char *at, size_t left) {
    int length = *at < 0x80 ? 1 : *at < 0xc2 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf5 ? 4 : 0;
    /* No longer form than is needed, no half of a pair of UTF-16, nothing above U+10FFFF. */
    unsigned char least = *at == 0xe0 ? 0xa0 : *at == 0xf0 ? 0x90 : 0x80;
    unsigned char most = *at == 0xed ? 0x9f : *at == 0xf4 ? 0x8f : 0xbf;
    int read = 1;
    for (; read < length && (size_t)read < left && at[read] >= least && at[read] <= most; read++) {
        least = 0x80;
        most = 0xbf;
    }
    return read == length ? length : -read;
}

guest_string_t wisr_scalar(const char *text, size_t length) {
    wisr_buffer out = {0};
    reserve(&out, length);
    size_t from = 0, at = 0;
    while (at < length) {
        int taken = character((const unsigned char *)text + at, length - at);
        if (taken < 0) {
            put(&out, text + from, at - from);
            wisr_put(&out, "\xef\xbf\xbd");
            from = at - taken;
        }
        at += taken < 0 ? -taken : taken;
    }
    put(&out, text + from, length - from);
    return (guest_string_t){(uint8_t *)out.text, out.length};
}

/* --- JSON ---------------------------------------------------------------------------------------------- */

/* How deep values may lie in each other: more is an attack on the stack. */
#define DEPTH 128

static const char *space(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
    return at;
}

static _Noreturn void broken(const char *at) {
    wisr_fail("not JSON, from here on: \"%.40s\"", at);
}

static const char *after_string(const char *at) {
    const char *begin = at++;
    for (; *at != '"'; at++) {
        if (*at == '\\') at++;
        if (!*at) broken(begin);
    }
    return at + 1;
}

static const char *after(const char *at, int depth) {
    at = space(at);
    if (*at == '"') return after_string(at);
    if (*at == '{' || *at == '[') {
        char close = *at == '{' ? '}' : ']';
        if (depth == DEPTH) wisr_fail("JSON deeper than %d levels", DEPTH);
        const char *next = space(at + 1);
        if (*next == close) return next + 1;
        for (;;) {
            if (close == '}') {
                if (*next != '"') broken(next);
                next = space(after_string(next));
                if (*next++ != ':') broken(next - 1);
            }
            next = space(after(next, depth + 1));
            if (*next == close) return next + 1;
            if (*next != ',') broken(next);
            next = space(next + 1);
        }
    }
    const char *end = at;
    while (isalnum((unsigned char)*end) || *end == '-' || *end == '+' || *end == '.') end++;
    if (end == at) broken(at);
    return end;
}

/* The first value inside, past the key of an object's. */
static const char *inside(const char *at) {
    if (*at != '"') return at;
    const char *colon = space(after_string(at));
    return *colon == ':' ? space(colon + 1) : at;
}

const char *wisr_json_first(const char *value) {
    if (!value) return NULL;
    value = space(value);
    if (*value != '[' && *value != '{') return NULL;
    const char *first = space(value + 1);
    return *first == ']' || *first == '}' ? NULL : inside(first);
}

const char *wisr_json_next(const char *value) {
    const char *comma = space(after(value, 0));
    return *comma == ',' ? inside(space(comma + 1)) : NULL;
}

static void put_code(wisr_buffer *out, unsigned long code) {
    char bytes[4];
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1; code >>= 6) bytes[i] = (char)(0x80 | (code & 63));
    bytes[0] = (char)(leads[length] | code);
    put(out, bytes, length);
}

static unsigned long hex(const char *at) {
    char digits[5] = {0};
    for (int i = 0; i < 4; i++) {
        if (!isxdigit((unsigned char)at[i])) broken(at);
        digits[i] = at[i];
    }
    return strtoul(digits, NULL, 16);
}

const char *wisr_json_text(const char *value) {
    if (!value || *(value = space(value)) != '"') return NULL;
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *end = after_string(value) - 1;
    wisr_buffer out = {0};
    wisr_put(&out, "");
    for (const char *at = value + 1; at < end; at++) {
        if (*at != '\\') {
            put(&out, at, 1);
            continue;
        }
        const char *escape = *++at ? strchr(plain, *at) : NULL;
        if (escape) {
            put(&out, &meant[escape - plain], 1);
        } else if (*at == 'u') {
            unsigned long code = hex(at + 1);
            at += 4;
            if (code >= 0xd800 && code < 0xdc00 && at[1] == '\\' && at[2] == 'u') {
                unsigned long low = hex(at + 3);
                if (low >= 0xdc00 && low < 0xe000) {
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    at += 6;
                }
            }
            /* A zero byte would end the text, half a pair is no character. */
            put_code(&out, !code || (code >= 0xd800 && code < 0xe000) ? 0xfffd : code);
        } else {
            broken(at - 1);
        }
    }
    return out.text;
}

double wisr_json_number(const char *value) {
    if (!value || !(value = space(value)) || !strchr("-0123456789", *value)) return 0;
    return strtod(value, NULL);
}

/* One step of a pointer, its ~1 and ~0 undone. */
static const char *step(const char **pointer) {
    wisr_buffer name = {0};
    wisr_put(&name, "");
    for (++*pointer; **pointer && **pointer != '/'; ++*pointer) {
        bool escaped = **pointer == '~' && ((*pointer)[1] == '0' || (*pointer)[1] == '1');
        put(&name, escaped ? (++*pointer, **pointer == '0' ? "~" : "/") : *pointer, 1);
    }
    return name.text;
}

static const char *member(const char *object, const char *name) {
    const char *key = space(object + 1);
    while (*key == '"') {
        const char *value = inside(key);
        if (!strcmp(wisr_json_text(key), name)) return value;
        const char *comma = space(after(value, 0));
        if (*comma != ',') return NULL;
        key = space(comma + 1);
    }
    return NULL;
}

const char *wisr_json(const char *json, const char *pointer) {
    if (!json) return NULL;
    const char *at = space(json);
    after(at, 0);
    while (at && *pointer == '/') {
        const char *name = step(&pointer);
        if (*at == '{') {
            at = member(at, name);
        } else {
            char *end;
            unsigned long index = strtoul(name, &end, 10);
            at = *name && !*end ? wisr_json_first(at) : NULL;
            while (at && index--) at = wisr_json_next(at);
        }
    }
    return at;
}
