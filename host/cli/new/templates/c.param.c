/* @ROUTE@ */
#include <string.h>

#include <wisr.h>

/* The pages to make ahead of time. Any other is made when somebody asks for it first. */
wisr_paths *static_paths(void) {
    wisr_paths *paths = wisr_paths_new(WISR_BLOCKING);
    wisr_path(paths@PATHS@);
    return paths;
}

/* Finds out what the page shows, and says for how many seconds that is fresh. */
wisr_outcome static_props(const wisr_context *ctx) {
    wisr_buffer value = {0}, props = {0};
    @VALUE@
    if (strcmp(value.text, "missing") == 0)
        return wisr_not_found();
    wisr_put_json(&props, value.text);
    return wisr_revalidate(wisr_props(props.text), 60);
}

wisr_document render(const wisr_context *ctx, const char *props) {
    const char *title = wisr_json_text(props);
    wisr_buffer page = {0};
    wisr_put(&page,
             "<!doctype html>\n"
             "<html lang=\"en\">\n"
             "<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<title>");
    wisr_put_escaped(&page, title);
    wisr_put(&page, "</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n<main>\n  <h1>");
    wisr_put_escaped(&page, title);
    wisr_put(&page,
             "</h1>\n"
             "  <p>One of the pages of <code>@ROUTE@</code>. Edit <code>@FILE@</code> and save it.</p>\n"
             "</main>\n");
    return wisr_html(page.text);
}
