/** Certificates and keys that fit together, and what is said of those that do not. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import t from 'tap';
import { type CertificateRead, readCertificate, type TlsConfig, tlsSection } from '../../../src/server/certificate.js';
import { hasOpenssl, selfSigned } from '../../kit/certificates.js';
import { configured } from '../../kit/deps.js';

const skip = hasOpenssl ? false : 'openssl is missing';

function faultOf(read: CertificateRead): readonly string[] {
  return read.kind === 'faulty' ? [read.key, read.message] : [read.kind];
}

void t.test('a certificate is read with its key, or the one at fault is named', { skip }, async (t) => {
  const folder = t.testdir();
  const one = selfSigned(folder, 'one');
  const other = selfSigned(folder, 'other');
  const at = (name: string): string => join(folder, name);
  writeFileSync(at('text'), 'no PEM');
  const read = (certificateFile: string | null, keyFile: string | null, more: Partial<TlsConfig> = {}) =>
    readCertificate(configured(tlsSection, { certificateFile, keyFile, ...more }));
  t.strictSame(read(null, null), { kind: 'off' });
  const fits = read(one.certFile, one.keyFile, { minVersion: 'TLSv1.3' });
  if (fits.kind !== 'read') throw new Error('it is read');
  t.strictSame(fits.context, { cert: one.cert, key: one.key, minVersion: 'TLSv1.3' });
  t.match(fits.certificate.subject, 'CN=one');
  t.doesNotThrow(() => createSecureContext(fits.context));
  const missing = 'cannot be read (ENOENT)';
  const cases: readonly (readonly [string | null, string | null, key: string, message: string])[] = [
    [null, one.keyFile, 'certificate_file', 'is needed together with `key_file`'],
    [one.certFile, null, 'key_file', 'is needed together with `certificate_file`'],
    [at('none'), one.keyFile, 'certificate_file', `the file ${at('none')} ${missing}`],
    [one.certFile, at('none'), 'key_file', `the file ${at('none')} ${missing}`],
    [at('text'), one.keyFile, 'certificate_file', `${at('text')} has no certificate in PEM`],
    [one.keyFile, one.keyFile, 'certificate_file', `${one.keyFile} has no certificate in PEM`],
    [one.certFile, at('text'), 'key_file', `${at('text')} has no private key in PEM that can be read`],
    [one.certFile, one.certFile, 'key_file', `${one.certFile} has no private key in PEM that can be read`],
    [one.certFile, other.keyFile, 'key_file', `${other.keyFile} is not the key of ${one.certFile}`],
  ];
  for (const [cert, key, atFault, message] of cases) {
    t.strictSame(faultOf(read(cert, key)), [atFault, message]);
  }
  writeFileSync(at('half'), `${one.cert}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`);
  t.strictSame(
    faultOf(read(at('half'), one.keyFile)),
    ['certificate_file', `${at('half')} cannot be used with its key for TLS`],
    'the certificates behind the first count too',
  );
});
