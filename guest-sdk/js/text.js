// `TextEncoder` and `TextDecoder` of the Encoding Standard, for UTF-8: the engine has neither.

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

// The least code point of each length: a shorter form exists for what is below, so it is malformed.
const LEAST = [0, 0, 0x80, 0x800, 0x10000];

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
    while (read < length && (bytes[at + read] & 0xc0) === 0x80) code = (code << 6) | (bytes[at + read++] & 63);
    const whole = length && read === length && code >= LEAST[length] && code < 0x110000 && (code & 0x1ff800) !== 0xd800;
    if (whole) return [code, length];
    if (this.#fatal) throw new TypeError("the data is not valid UTF-8");
    return [0xfffd, read];
  }
}
