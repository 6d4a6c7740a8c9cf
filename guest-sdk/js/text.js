// Text as it crosses the border. A string of JavaScript may hold half a surrogate pair, which is no Unicode and
// which the contract's strings cannot hold: as on the web it becomes U+FFFD (Infra, "scalar value string").
// `TextEncoder` and `TextDecoder` are those of the Encoding Standard, for UTF-8: the engine has neither.

/** A value as text that the host can take. */
export const scalar = (value) => String(value).toWellFormed();

/** The same for each string of what goes to the host. */
export const scalars = (value) => {
  if (typeof value === "string") return value.toWellFormed();
  if (Array.isArray(value)) return value.map(scalars);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, scalars(part)]));
};

/** HTML in which everything from outside has been escaped. */
export class Html {
  #text;
  constructor(text) {
    this.#text = text;
  }
  toString() {
    return this.#text;
  }
}

/** Whether an object says of itself what its text is: others are `[object Object]`, or a list of such. */
export const hasText = (value) =>
  typeof value.toString === "function" &&
  value.toString !== Object.prototype.toString &&
  typeof value.then !== "function" &&
  ![Array, Error, Date, RegExp, Number, Boolean].some((kind) => value instanceof kind) &&
  !ArrayBuffer.isView(value);

export class TextEncoder {
  encoding = "utf-8";
  encode(text = "") {
    const bytes = [];
    for (const char of String(text).toWellFormed()) {
      const code = char.codePointAt(0);
      if (code < 0x80) bytes.push(code);
      else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
      else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
      else {
        bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
      }
    }
    return Uint8Array.from(bytes);
  }
}

// What the second byte may be after these first ones, so that there is no longer form than is needed, no half
// of a pair, and nothing above U+10FFFF. Of all others it is 0x80 to 0xbf.
const SECOND = new Map([[0xe0, [0xa0, 0xbf]], [0xed, [0x80, 0x9f]], [0xf0, [0x90, 0xbf]], [0xf4, [0x80, 0x8f]]]);

export class TextDecoder {
  encoding = "utf-8";
  #fatal;
  constructor(label = "utf-8", { fatal = false } = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`TextDecoder knows utf-8 only, not ${label}`);
    this.#fatal = fatal;
  }
  decode(input = new Uint8Array()) {
    const bytes = ArrayBuffer.isView(input)
      ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
      : new Uint8Array(input);
    const text = [];
    // Less than the engine's limit of arguments.
    const CHUNK = 8192;
    let chunk = [];
    let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
    while (at < bytes.length) {
      const [code, length] = this.#next(bytes, at);
      chunk.push(code);
      at += length;
      if (chunk.length === CHUNK) {
        text.push(String.fromCodePoint(...chunk));
        chunk = [];
      }
    }
    return text.join("") + String.fromCodePoint(...chunk);
  }
  #next(bytes, at) {
    const lead = bytes[at];
    if (lead < 0x80) return [lead, 1];
    const length = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc2 && lead < 0xe0 ? 2 : 0;
    let code = lead & (0x7f >> length);
    let read = 1;
    let [least, most] = SECOND.get(lead) ?? [0x80, 0xbf];
    while (read < length && bytes[at + read] >= least && bytes[at + read] <= most) {
      code = (code << 6) | (bytes[at + read++] & 63);
      [least, most] = [0x80, 0xbf];
    }
    if (length && read === length) return [code, length];
    if (this.#fatal) throw new TypeError("the data is not valid UTF-8");
    return [0xfffd, read];
  }
}
