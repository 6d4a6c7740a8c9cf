/* @ROUTE@ */
#include <time.h>

#include <wisr.h>

/* Finds out what the page shows, and says for how many seconds that is fresh. */
wisr_outcome static_props(const wisr_context *ctx) {
    wisr_buffer props = {0};
    wisr_putf(&props, "%lld", (long long)time(NULL));
    return wisr_revalidate(wisr_props(props.text), 10);
}

wisr_document render(const wisr_context *ctx, const char *props) {
    wisr_buffer page = {0};
    wisr_putf(&page,
              "<!doctype html>\n"
              "<html lang=\"en\">\n"
              "<meta charset=\"utf-8\">\n"
              "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
              "<title>@TITLE@</title>\n"
              "<link rel=\"stylesheet\" href=\"/style.css\">\n"
              "<main>\n"
              "  <h1>@TITLE@</h1>\n"
              "  <p>Made %.0f seconds after 1970, and fresh for ten.</p>\n"
              "  <p>Edit <code>@FILE@</code> and save it.</p>\n"
              "</main>\n",
              wisr_json_number(props));
    return wisr_html(page.text);
}
