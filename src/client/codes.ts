/** Every code of an error, closed: those that the service answers with, and those of this library. */

/** Several in a text: quotes around each would be a tenth of a kilobyte more for every browser. */
const LINES = [
  'malformed invalid_id empty digest_mismatch unauthorized link_expired forbidden quarantined not_found',
  'thumbnail_unavailable method_not_allowed request_timeout conflict deleted expired length_required',
  'precondition_failed too_large uri_too_long type_refused type_mismatch range_not_satisfiable expectation_failed',
  'misdirected rate_limited quota_exceeded headers_too_large checksum_mismatch internal not_implemented',
  'bad_gateway overloaded auth_unavailable cut_off storage_unavailable gateway_timeout http_version storage_full',
] as const;

type WordsOf<Line extends string> = Line extends `${infer First} ${infer Rest}` ? First | WordsOf<Rest> : Line;

export type ServiceCode = WordsOf<(typeof LINES)[number]>;

/** Codes of the service's problem documents (RFC 9457), as `/openapi.json` lists them. */
export const SERVICE_CODES = LINES.join(' ').split(' ') as readonly ServiceCode[];

export const CLIENT_CODES = [
  /** The connection failed, or the answer broke off. */
  'network',
  /** Nothing moved for `stallMs`. */
  'stalled',
  /** The caller cancelled, or its signal aborted. */
  'aborted',
  /** The upload needs tus-js-client, which could not be loaded. */
  'tus_unavailable',
  /** The answer is not one that the service gives: a proxy may have made it, or the service is newer than this library. */
  'unexpected',
] as const;

export type ErrorCode = ServiceCode | (typeof CLIENT_CODES)[number];

export function serviceCode(word: unknown): ServiceCode | undefined {
  return SERVICE_CODES.find((code) => code === word);
}
