/**
 * The certificate a listener shows and its key: read from two files, checked
 * against each other before anyone is shown them.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { choice, flag, integer, optionalText, section, type ValueOf } from '../config/field.js';
import { errorCode } from '../errors.js';

export const tlsSection = section('TLS for clients, where both files are named; plain HTTP without.', {
  certificateFile: optionalText({
    default: null,
    help: 'The certificate and those between it and its root (PEM). Read again when it changes.',
  }),
  keyFile: optionalText({ default: null, help: 'Its private key (PEM, without a passphrase). Read again likewise.' }),
  minVersion: choice({ default: 'TLSv1.2', of: ['TLSv1.2', 'TLSv1.3'], help: 'The oldest protocol that is spoken.' }),
  http2: flag({ default: true, help: 'Whether HTTP/2 is offered, beside HTTP/1.1.' }),
  streamsMax: integer({
    default: 100,
    min: 1,
    max: 10_000,
    help: 'Requests at once on one HTTP/2 connection.',
  }),
  interruptionsMax: integer({
    default: 1_000,
    min: 10,
    max: 1_000_000,
    help: 'Pings, settings and requests taken back by the client on one HTTP/2 connection in ten seconds; with more it is ended.',
  }),
});

export type TlsConfig = ValueOf<typeof tlsSection>;

export type CertificateRead =
  | { readonly kind: 'off' }
  | { readonly kind: 'read'; readonly context: SecureContextOptions; readonly certificate: X509Certificate }
  | {
      readonly kind: 'faulty';
      /** Which key of the configuration. */
      readonly key: 'certificate_file' | 'key_file';
      readonly message: string;
    };

export function readCertificate(config: TlsConfig): CertificateRead {
  const { certificateFile, keyFile, minVersion } = config;
  if (certificateFile === null && keyFile === null) return { kind: 'off' };
  if (certificateFile === null) return faulty('certificate_file', 'must be named where `key_file` is');
  if (keyFile === null) return faulty('key_file', 'must be named where `certificate_file` is');
  const cert = textOf(certificateFile);
  if (cert.kind === 'faulty') return faulty('certificate_file', cert.message);
  const key = textOf(keyFile);
  if (key.kind === 'faulty') return faulty('key_file', key.message);
  const certificate = parsed(() => new X509Certificate(cert.text));
  if (certificate === undefined) return faulty('certificate_file', `${certificateFile} holds no certificate in PEM`);
  const privateKey = parsed<KeyObject>(() => createPrivateKey(key.text));
  if (privateKey === undefined) return faulty('key_file', `${keyFile} holds no private key in PEM that can be read`);
  if (!certificate.checkPrivateKey(privateKey)) {
    return faulty('key_file', `${keyFile} holds another key than that of ${certificateFile}`);
  }
  const context = { cert: cert.text, key: key.text, minVersion };
  if (parsed(() => createSecureContext(context)) === undefined) {
    return faulty('certificate_file', `${certificateFile} cannot be used with its key for TLS`);
  }
  return { kind: 'read', context, certificate };
}

function faulty(key: 'certificate_file' | 'key_file', message: string): CertificateRead {
  return { kind: 'faulty', key, message };
}

function textOf(
  path: string,
): { readonly kind: 'text'; readonly text: string } | { readonly kind: 'faulty'; readonly message: string } {
  try {
    return { kind: 'text', text: readFileSync(path, 'utf8') };
  } catch (thrown) {
    return { kind: 'faulty', message: `the file ${path} cannot be read (${errorCode(thrown) ?? 'unknown'})` };
  }
}

function parsed<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
