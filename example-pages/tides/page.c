/* `/tides`: today's and tomorrow's tide at the bar, as a sum of the constituents of the harbour. A page in C. */

#include <math.h>
#include <time.h>

#include "../_layout/frame.h"

#define DAY 86400
#define SPAN (2 * DAY)
#define STEP 360

/* Amplitude in metres, speed in degrees an hour, phase in degrees at the epoch. Slack Water's bar is on no
 * other chart than ours; the speeds are the moon's and the sun's. */
static const struct {
    const char *name;
    double metres, speed, phase;
} CONSTITUENTS[] = {
    {"M2", 1.42, 28.9841042, 112.0}, {"S2", 0.48, 30.0000000, 154.0}, {"N2", 0.29, 28.4397295, 90.0},
    {"K1", 0.11, 15.0410686, 21.0},  {"O1", 0.09, 13.9430356, 338.0}, {"M4", 0.06, 57.9682084, 205.0},
};

#define MEAN 2.3

static double height(double at) {
    double metres = MEAN;
    for (size_t i = 0; i < sizeof CONSTITUENTS / sizeof *CONSTITUENTS; i++) {
        double angle = fmod(CONSTITUENTS[i].speed * at / 3600, 360) - CONSTITUENTS[i].phase;
        metres += CONSTITUENTS[i].metres * cos(angle * M_PI / 180);
    }
    return metres;
}

wisr_outcome static_props(const wisr_context *ctx) {
    time_t midnight = time(NULL) / DAY * DAY;
    wisr_buffer json = {0};
    wisr_putf(&json, "{\"from\":%lld,\"slack\":[", (long long)midnight);
    const char *comma = "";
    for (time_t at = midnight; at < midnight + SPAN; at += 60) {
        double before = height((double)(at - 60)), here = height((double)at), after = height((double)(at + 60));
        if ((here > before) == (after > here)) continue;
        wisr_putf(&json, "%s{\"at\":%lld,\"metres\":%.2f,\"high\":%s}", comma, (long long)at, here,
                  here > before ? "true" : "false");
        comma = ",";
    }
    wisr_put(&json, "]}");
    return wisr_tag(wisr_revalidate(wisr_props(json.text), 600), "tides");
}

static void curve(wisr_buffer *out, double from) {
    wisr_put(out, "<svg class=\"tide\" viewBox=\"0 -30 960 270\" role=\"img\" aria-label=\"The height of the tide "
                  "over two days\"><path class=\"water\" d=\"M0 240");
    for (int at = 0; at <= SPAN; at += STEP) wisr_putf(out, "L%.1f %.1f", at * 960.0 / SPAN, 230 - 44 * height(from + at));
    wisr_put(out, "L960 240Z\"></path>");
    for (int hours = 6; hours < 48; hours += 6) {
        wisr_putf(out, "<path class=\"%s\" d=\"M%d -30V240\"></path><text x=\"%d\" y=\"-24\">%02d:00</text>",
                  hours == 24 ? "day" : "hour", hours * 20, hours * 20 + 6, hours % 24);
    }
    wisr_put(out, "</svg>");
}

wisr_document render(const wisr_context *ctx, const char *props) {
    double from = wisr_json_number(wisr_json(props, "/from"));
    wisr_buffer out = {0};
    wisr_put(&out, "<header><h1>Tides at the bar</h1><p class=\"lead\">When to cross: at each of these times the "
                   "water stands still for about twenty minutes.</p></header>");
    curve(&out, from);
    wisr_put(&out, "<div class=\"prose\"><div class=\"scroll\"><table><tr><th>Day</th><th>UTC</th><th>Slack "
                   "water</th><th>Metres</th></tr>");
    for (const char *slack = wisr_json_first(wisr_json(props, "/slack")); slack; slack = wisr_json_next(slack)) {
        time_t at = (time_t)wisr_json_number(wisr_json(slack, "/at"));
        char day[32], hour[8];
        strftime(day, sizeof day, "%a %e %b", gmtime(&at));
        strftime(hour, sizeof hour, "%H:%M", gmtime(&at));
        wisr_putf(&out, "<tr><td>%s</td><td>%s</td><td>%s</td><td>%.1f</td></tr>", day, hour,
                  wisr_json(slack, "/high")[0] == 't' ? "high" : "low", wisr_json_number(wisr_json(slack, "/metres")));
    }
    wisr_put(&out, "</table></div><p>Summed from the constituents of the harbour: ");
    for (size_t i = 0; i < sizeof CONSTITUENTS / sizeof *CONSTITUENTS; i++) {
        wisr_putf(&out, "%s%s", i ? ", " : "", CONSTITUENTS[i].name);
    }
    wisr_put(&out, ". Not for navigation: this harbour is on no other chart.</p></div>");
    return frame(ctx, "Tides at the bar", "High and low water today and tomorrow.", "listing", out.text);
}
