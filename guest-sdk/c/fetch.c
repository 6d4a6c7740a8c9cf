/* wisr_fetch and wisr_send: one HTTP request through wasi:http, waited for to its end. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "internal.h"
#include "wisr.h"

/* What one blocking-write-and-flush takes at most (wasi:io/streams). */
#define WRITE 4096
#define CHUNK (64 * 1024)

static const char *const METHODS[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                      "CONNECT", "OPTIONS", "TRACE", "PATCH"};

static const char *refusal(const wasi_http_types_error_code_t *code) {
    switch (code->tag) {
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_DENIED:
        return "denied: the origin is not in the `outbound` list of the route";
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_PROHIBITED:
        return "denied: the address is not public";
    case WASI_HTTP_TYPES_ERROR_CODE_DNS_TIMEOUT:
        return "looking up the host took too long";
    case WASI_HTTP_TYPES_ERROR_CODE_DNS_ERROR:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_NOT_FOUND:
        return "the host is unknown";
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_UNAVAILABLE:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_UNROUTABLE:
        return "the host cannot be reached";
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_REFUSED:
        return "connection refused";
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_TERMINATED:
        return "the connection was closed before the answer";
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_TIMEOUT:
        return "connecting took too long";
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_READ_TIMEOUT:
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_RESPONSE_TIMEOUT:
        return "the answer took too long";
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_LIMIT_REACHED:
        return "too many requests at once";
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_PROTOCOL_ERROR:
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_ALERT_RECEIVED:
        return "TLS failed";
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_CERTIFICATE_ERROR:
        return "the host's certificate is not trusted";
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_BODY_SIZE:
        return "the request's body is too large";
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_RESPONSE_BODY_SIZE:
        return "the answer is too large";
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_RESPONSE_INCOMPLETE:
        return "the answer broke off";
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_PROTOCOL_ERROR:
        return "the answer is not HTTP";
    case WASI_HTTP_TYPES_ERROR_CODE_LOOP_DETECTED:
        return "the request leads back to this server";
    case WASI_HTTP_TYPES_ERROR_CODE_INTERNAL_ERROR:
        if (code->val.internal_error.is_some)
            return wisr_copy(code->val.internal_error.val.ptr, code->val.internal_error.val.len);
        return "the request failed";
    default:
        return "the request failed";
    }
}

/* The parts of a URL that a request is made of; NULL, or why it cannot be fetched. */
static const char *split(const char *url, wasi_http_types_scheme_t *scheme, guest_string_t *authority,
                         guest_string_t *path) {
    for (const char *at = url; *at; at++) {
        if (*at <= ' ' || *at > '~') return "a URL holds no spaces and only ASCII: percent-encode the rest";
    }
    size_t skipped;
    if (!strncasecmp(url, "https://", skipped = 8)) {
        scheme->tag = WASI_HTTP_TYPES_SCHEME_HTTPS;
    } else if (!strncasecmp(url, "http://", skipped = 7)) {
        scheme->tag = WASI_HTTP_TYPES_SCHEME_HTTP;
    } else {
        return "not an absolute URL: it needs https:// or http://";
    }
    const char *host = url + skipped;
    size_t length = strcspn(host, "/?#");
    if (!length) return "the URL has no host";
    if (memchr(host, '@', length)) return "credentials belong into the authorization header, not into the URL";
    *authority = (guest_string_t){(uint8_t *)host, length};
    wisr_buffer rest = {0};
    /* A fragment never travels (RFC 9110, section 7.1). */
    wisr_putf(&rest, "%s%.*s", host[length] == '/' ? "" : "/", (int)strcspn(host + length, "#"), host + length);
    *path = wisr_view(rest.text);
    return NULL;
}

static const char *append(wasi_http_types_borrow_fields_t fields, const char *name, const char *value) {
    guest_string_t key = wisr_scalar(wisr_given(name, "a header's name"), strlen(name));
    wisr_given(value, name);
    wasi_http_types_field_value_t bytes = {(uint8_t *)value, strlen(value)};
    wasi_http_types_header_error_t error;
    if (wasi_http_types_method_fields_append(fields, &key, &bytes, &error)) return NULL;
    return error.tag == WASI_HTTP_TYPES_HEADER_ERROR_FORBIDDEN ? "a header that the host sets"
                                                               : "a header is malformed";
}

static const char *prepare(const wisr_request *request, wasi_http_types_own_outgoing_request_t *made) {
    wasi_http_types_scheme_t scheme;
    guest_string_t authority, path;
    const char *wrong = split(request->url, &scheme, &authority, &path);
    if (wrong) return wrong;
    wasi_http_types_own_fields_t headers = wasi_http_types_constructor_fields();
    wasi_http_types_borrow_fields_t fields = wasi_http_types_borrow_fields(headers);
    for (const char *const *at = request->headers; at && *at && !wrong; at += 2) wrong = append(fields, at[0], at[1]);
    if (request->length && !wrong) {
        char length[24];
        snprintf(length, sizeof length, "%zu", request->length);
        wrong = append(fields, "content-length", length);
    }
    if (wrong) return wrong;
    const char *name = request->method ? request->method : "GET";
    wasi_http_types_method_t method = {.tag = WASI_HTTP_TYPES_METHOD_OTHER, .val = {.other = wisr_scalar(name, strlen(name))}};
    for (uint8_t tag = 0; tag < sizeof METHODS / sizeof *METHODS; tag++) {
        if (!strcmp(METHODS[tag], name)) method.tag = tag;
    }
    *made = wasi_http_types_constructor_outgoing_request(headers);
    wasi_http_types_borrow_outgoing_request_t to = wasi_http_types_borrow_outgoing_request(*made);
    bool fits = wasi_http_types_method_outgoing_request_set_method(to, &method) &&
                wasi_http_types_method_outgoing_request_set_scheme(to, &scheme) &&
                wasi_http_types_method_outgoing_request_set_authority(to, &authority) &&
                wasi_http_types_method_outgoing_request_set_path_with_query(to, &path);
    return fits ? NULL : "the URL or the method is malformed";
}

/* A server may answer before it has read everything, and that answer is worth more than the broken pipe. */
static void write_body(wasi_http_types_own_outgoing_body_t body, const wisr_request *request) {
    wasi_io_streams_own_output_stream_t stream;
    if (!wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(body), &stream)) return;
    bool open = true;
    for (size_t at = 0; open && at < request->length; at += WRITE) {
        size_t length = request->length - at < WRITE ? request->length - at : WRITE;
        guest_list_u8_t part = {(uint8_t *)request->body + at, length};
        wasi_io_streams_stream_error_t error;
        open = wasi_io_streams_method_output_stream_blocking_write_and_flush(
            wasi_io_streams_borrow_output_stream(stream), &part, &error);
    }
    /* The body cannot be finished while its stream lives. */
    wasi_io_streams_output_stream_drop_own(stream);
    wasi_http_types_error_code_t code;
    (void)wasi_http_types_static_outgoing_body_finish(body, NULL, &code);
}

static const char *receive(wasi_http_types_own_incoming_response_t incoming, wisr_response *response) {
    wasi_http_types_borrow_incoming_response_t from = wasi_http_types_borrow_incoming_response(incoming);
    wasi_http_types_list_tuple2_field_name_field_value_t entries;
    wasi_http_types_own_headers_t headers = wasi_http_types_method_incoming_response_headers(from);
    wasi_http_types_method_fields_entries(wasi_http_types_borrow_fields(headers), &entries);
    for (size_t i = 0; i < entries.len; i++) {
        const char *name = wisr_copy(entries.ptr[i].f0.ptr, entries.ptr[i].f0.len);
        const char *value = wisr_copy(entries.ptr[i].f1.ptr, entries.ptr[i].f1.len);
        response->headers = wisr_add(response->headers, response->header_count++, name);
        response->headers = wisr_add(response->headers, response->header_count++, value);
    }
    wasi_http_types_own_incoming_body_t body;
    wasi_io_streams_own_input_stream_t stream;
    if (!wasi_http_types_method_incoming_response_consume(from, &body) ||
        !wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream))
        return "the body was taken";
    response->body = wisr_copy("", 0);
    for (;;) {
        guest_list_u8_t chunk;
        wasi_io_streams_stream_error_t error;
        if (!wasi_io_streams_method_input_stream_blocking_read(wasi_io_streams_borrow_input_stream(stream), CHUNK,
                                                               &chunk, &error)) {
            if (error.tag != WASI_IO_STREAMS_STREAM_ERROR_CLOSED) return "the answer broke off";
            break;
        }
        response->body = realloc(response->body, response->length + chunk.len + 1);
        if (!response->body) wisr_fail("out of memory");
        memcpy(response->body + response->length, chunk.ptr, chunk.len);
        response->length += chunk.len;
        response->body[response->length] = 0;
        guest_list_u8_free(&chunk);
    }
    response->status = wasi_http_types_method_incoming_response_status(from);
    /* Nothing else is dropped, nor is this: the sandbox goes with all its handles. */
    return NULL;
}

static const char *exchange(const wisr_request *request, wisr_response *response) {
    wasi_http_types_own_outgoing_request_t outgoing;
    const char *wrong = prepare(request, &outgoing);
    if (wrong) return wrong;
    wasi_http_types_own_outgoing_body_t body;
    if (request->length &&
        !wasi_http_types_method_outgoing_request_body(wasi_http_types_borrow_outgoing_request(outgoing), &body))
        return "the request has no body";
    wasi_http_types_own_future_incoming_response_t answer;
    wasi_http_types_error_code_t code;
    if (!wasi_http_outgoing_handler_handle(outgoing, NULL, &answer, &code)) return refusal(&code);
    if (request->length) write_body(body, request);
    wasi_http_types_borrow_future_incoming_response_t waited =
        wasi_http_types_borrow_future_incoming_response(answer);
    wasi_http_types_own_pollable_t ready = wasi_http_types_method_future_incoming_response_subscribe(waited);
    wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(ready));
    wasi_io_poll_pollable_drop_own(ready);
    wasi_http_types_result_result_own_incoming_response_error_code_void_t got;
    if (!wasi_http_types_method_future_incoming_response_get(waited, &got) || got.is_err)
        return "the answer was taken";
    if (got.val.ok.is_err) return refusal(&got.val.ok.val.err);
    return receive(got.val.ok.val.ok, response);
}

wisr_response wisr_send(const wisr_request *request) {
    wisr_given(request->url, "the URL of a request");
    wisr_response response = {0};
    const char *wrong = exchange(request, &response);
    if (!wrong) return response;
    wisr_buffer words = {0};
    wisr_putf(&words, "%s %s: %s", request->method ? request->method : "GET", request->url, wrong);
    return (wisr_response){.error = words.text};
}

wisr_response wisr_fetch(const char *url) {
    wisr_response response = wisr_send(&(wisr_request){.url = url});
    if (response.error) wisr_fail("%s", response.error);
    return response;
}

const char *wisr_response_header(const wisr_response *response, const char *name) {
    for (size_t i = 0; i < response->header_count; i += 2) {
        if (!strcasecmp(response->headers[i], name)) return response->headers[i + 1];
    }
    return NULL;
}
