/**
 * The certificate of a listener and its key: reads both files and checks that
 * they fit together before they are used.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { choice, flag, integer, optionalText, section, type ValueOf } from '../config/field.js';
import { errorCode } from '../errors.js';

export const tlsSection = section('TLS for clients. Without the two files, the edge speaks plain HTTP.', {
  certificateFile: optionalText({
    default: null,
    help: 'The certificate and the intermediate ones (PEM). The file is read again when it changes.',
  }),
  keyFile: optionalText({ default: null, help: 'Its private key (PEM, without a passphrase). Also read again.' }),
  minVersion: choice({
    default: 'TLSv1.2',
    of: ['TLSv1.2', 'TLSv1.3'],
    help: 'The oldest TLS version that is accepted.',
  }),
  http2: flag({ default: true, help: 'Whether HTTP/2 is offered besides HTTP/1.1.' }),
  streamsMax: integer({
    default: 100,
    min: 1,
    max: 10_000,
    help: 'Open requests on one HTTP/2 connection.',
  }),
  interruptionsMax: integer({
    default: 1_000,
    min: 10,
    max: 1_000_000,
    help: 'Pings, settings and cancelled requests on one HTTP/2 connection within ten seconds. With more, the connection is ended.',
  }),
});

export type TlsConfig = ValueOf<typeof tlsSection>;

export type CertificateRead =
  | { readonly kind: 'off' }
  | { readonly kind: 'read'; readonly context: SecureContextOptions; readonly certificate: X509Certificate }
  | {
      readonly kind: 'faulty';
      /** The key of the configuration that is at fault. */
      readonly key: 'certificate_file' | 'key_file';
      readonly message: string;
    };

export function readCertificate(config: TlsConfig): CertificateRead {
  const { certificateFile, keyFile, minVersion } = config;
  if (certificateFile === null && keyFile === null) return { kind: 'off' };
  if (certificateFile === null) return faulty('certificate_file', 'is needed together with `key_file`');
  if (keyFile === null) return faulty('key_file', 'is needed together with `certificate_file`');
  const cert = textOf(certificateFile);
  if (cert.kind === 'faulty') return faulty('certificate_file', cert.message);
  const key = textOf(keyFile);
  if (key.kind === 'faulty') return faulty('key_file', key.message);
  const certificate = parsed(() => new X509Certificate(cert.text));
  if (certificate === undefined) return faulty('certificate_file', `${certificateFile} has no certificate in PEM`);
  const privateKey = parsed<KeyObject>(() => createPrivateKey(key.text));
  if (privateKey === undefined) return faulty('key_file', `${keyFile} has no private key in PEM that can be read`);
  if (!certificate.checkPrivateKey(privateKey)) {
    return faulty('key_file', `${keyFile} is not the key of ${certificateFile}`);
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
