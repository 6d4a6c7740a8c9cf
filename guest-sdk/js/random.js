// Randomness that differs from sandbox to sandbox: the engine's own was seeded when the page was built.

import { getRandomBytes } from "wasi:random/random@0.2.3";

Math.random = () => getRandomBytes(6).reduce((value, byte) => (value + byte) / 256, 0);

// What one call gives at most (Web Cryptography, section 10.1.1).
const QUOTA = 65536;

export const crypto = {
  getRandomValues(array) {
    if (array.byteLength > QUOTA) throw new RangeError(`getRandomValues gives ${QUOTA} bytes at most`);
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(getRandomBytes(array.byteLength));
    return array;
  },
  randomUUID() {
    const bytes = getRandomBytes(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};
