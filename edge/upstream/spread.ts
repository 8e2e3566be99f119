/**
 * In which order several origins are asked for one key: rendezvous hashing. Each key has an order of its own, keys are
 * spread evenly, and when an origin comes or goes only the keys whose first origin it is are moved. Pure.
 */
export function inOrderFor<T extends { readonly url: string }>(key: string, origins: readonly T[]): readonly T[] {
  if (origins.length < 2) return origins;
  return origins
    .map((origin) => ({ origin, weight: hashOf(`${origin.url}\n${key}`) }))
    .sort((a, b) => b.weight - a.weight)
    .map(({ origin }) => origin);
}

/** FNV-1a, mixed as MurmurHash3 ends: the weights of texts that differ in one character have nothing in common. */
function hashOf(text: string): number {
  let hash = 0x81_1c_9d_c5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01_00_01_93);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85_eb_ca_6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2_b2_ae_35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
