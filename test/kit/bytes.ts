/** Bytes as a format's description writes them. */

/** Hexadecimal digits, with spaces where they help. */
export const hex = (digits: string): Buffer => Buffer.from(digits.replaceAll(' ', ''), 'hex');

export const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

export const join = (...parts: readonly Buffer[]): Buffer => Buffer.concat(parts);

/** Big-endian, 16 bits each. */
export const u16 = (...values: readonly number[]): Buffer =>
  join(...values.map((value) => hex(value.toString(16).padStart(4, '0'))));
