/**
 * TLS to the origin: how its certificate is checked, the same for fetches,
 * passed requests and the journal; and for operators, a short name for what is
 * wrong with it.
 */
import { readFileSync } from 'node:fs';
import { errorCode, Fault } from '../../src/errors.js';

/** Options for node's tls. Without them: the system's authorities, and the host of the URL. */
export interface OriginTls {
  /** PEM. */
  readonly ca?: string;
  /** The name that the certificate must carry. */
  readonly servername?: string;
}

export function readOriginTls(config: { readonly caFile: string | null; readonly serverName: string }): OriginTls {
  return {
    ...(config.caFile !== null && { ca: readCertificates(config.caFile) }),
    ...(config.serverName !== '' && { servername: config.serverName }),
  };
}

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (thrown) {
    throw new Fault('internal', `The certificates for the origin cannot be read: ${path}`, { cause: thrown });
  }
}

export type TlsTrouble =
  /** Not signed by a trusted authority. */
  | 'untrusted'
  | 'expired'
  | 'not_yet_valid'
  | 'revoked'
  /** It names another host. */
  | 'name_mismatch'
  /** The peer speaks no TLS, or no version and cipher in common. */
  | 'handshake';

/** Undefined: the error has nothing to do with TLS. The codes are those of OpenSSL and node. */
export function tlsTroubleOf(error: unknown): TlsTrouble | undefined {
  const code = errorCode(error);
  switch (code) {
    case undefined:
      return undefined;
    case 'CERT_HAS_EXPIRED':
      return 'expired';
    case 'CERT_NOT_YET_VALID':
      return 'not_yet_valid';
    case 'CERT_REVOKED':
      return 'revoked';
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
    case 'HOSTNAME_MISMATCH':
      return 'name_mismatch';
    default:
      if (/^(?:ERR_SSL_|ERR_TLS_|EPROTO$)/.test(code)) return 'handshake';
      return UNTRUSTED.test(code) ? 'untrusted' : undefined;
  }
}

const UNTRUSTED = /CERT|^INVALID_(?:CA|PURPOSE)$|^UNABLE_TO_VERIFY_LEAF_SIGNATURE$|^PATH_LENGTH_EXCEEDED$/;
