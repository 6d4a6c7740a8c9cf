/* The document round a page, for pages in C. */
#ifndef FRAME_H
#define FRAME_H

#include <string.h>
#include <wisr.h>

WISR_EMBED(frame_template, "../_layout/frame.html");

static const char *frame_value(const wisr_context *ctx, const char *name, const char *title,
                               const char *description, const char *kind) {
    if (!strncmp(name, "title}}", 7)) return title;
    if (!strncmp(name, "description}}", 13)) return description;
    if (!strncmp(name, "kind}}", 6)) return kind;
    wisr_buffer address = {0};
    const char *site = wisr_setting("site");
    wisr_putf(&address, "%s%s", site ? site : "", ctx->path);
    return address.text;
}

/* The finished document. The kind becomes the class of main, which the stylesheet lays out by. */
static wisr_document frame(const wisr_context *ctx, const char *title, const char *description,
                           const char *kind, const char *content) {
    wisr_buffer out = {0};
    const char *at = frame_template;
    for (const char *hole; (hole = strstr(at, "{{")); at = strstr(hole, "}}") + 2) {
        wisr_putf(&out, "%.*s", (int)(hole - at), at);
        if (!strncmp(hole, "{{content}}", 11)) wisr_put(&out, content);
        else wisr_put_escaped(&out, frame_value(ctx, hole + 2, title, description, kind));
    }
    wisr_put(&out, at);
    return wisr_html(out.text);
}

#endif
