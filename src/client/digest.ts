/** SHA-256 by WebCrypto, which browsers offer on https and localhost alone: elsewhere nothing is compared. */

/** Undefined where there is no WebCrypto. */
export async function sha256(bytes: ArrayBuffer): Promise<Uint8Array | undefined> {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;
  return subtle === undefined ? undefined : new Uint8Array(await subtle.digest('SHA-256', bytes));
}

export function base64(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}
