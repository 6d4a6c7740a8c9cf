// Where an error came from, in the author's files: the guest asks with the stack of an error, the builder with
// the engine's words about a module that failed as it was loaded. Source maps are ECMA-426.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The numbers of one base64-VLQ segment. */
const numbers = (segment) => {
  const found = [];
  let value = 0;
  let shift = 0;
  for (const digit of segment) {
    const bits = DIGITS.indexOf(digit);
    value += (bits & 31) << shift;
    shift += 5;
    if (bits < 32) {
      found.push(value & 1 ? -(value >> 1) : value >> 1);
      value = shift = 0;
    }
  }
  return found;
};

/** The place in a source of each line and column (from 1) of the bundle, as `file:line:column`. */
export const locator = ({ sources, mappings }) => {
  let [source, line, column] = [0, 0, 0];
  const rows = mappings.split(";").map((row) => {
    let generated = 0;
    return row.split(",").filter(Boolean).map((segment) => {
      const [step, ...moved] = numbers(segment);
      generated += step;
      source += moved[0] ?? 0;
      line += moved[1] ?? 0;
      column += moved[2] ?? 0;
      return [generated, moved.length ? [sources[source], line + 1, column + 1] : undefined];
    });
  });
  return (atLine, atColumn) => (rows[atLine - 1] ?? []).findLast(([from]) => from < atColumn)?.[1];
};

/**
 * The lines of a stack or message with places of the bundle told as places of its sources. Frames of the engine
 * itself have no place, and say nothing.
 */
export const retrace = (text, map, isOurs) => {
  const locate = locator(map);
  const PLACE = /(?:componentize-qjs:user\.js|[^\s()]*bundle\.js):(\d+)(?::(\d+))?/;
  const lines = text.split("\n").map((line) => {
    if (line.endsWith("(native)")) return undefined;
    const place = PLACE.exec(line);
    const found = place && locate(Number(place[1]), Number(place[2] ?? Infinity));
    if (!found) return place ? undefined : line;
    return isOurs(found[0]) ? undefined : line.replace(place[0], found.join(":"));
  });
  return lines.filter((line) => line !== undefined).join("\n");
};
