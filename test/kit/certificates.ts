/** Certificates for tests, made with openssl: node cannot sign certificates. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

export interface TestCertificate {
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: string;
  readonly key: string;
}

export interface CertificateOptions {
  /** The names that it is for, as a subjectAltName. */
  readonly names?: string;
  readonly expired?: boolean;
}

const NEW_KEY = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'.split(' ');

/** A self-signed certificate, for 127.0.0.1 and localhost unless other names are given. */
export function selfSigned(folder: string, name: string, options: CertificateOptions = {}): TestCertificate {
  const [certFile, keyFile, requestFile] = ['crt', 'key', 'csr'].map((ending) => join(folder, `${name}.${ending}`)) as [
    string,
    string,
    string,
  ];
  const subject = [
    '-subj',
    `/CN=${name}`,
    '-addext',
    `subjectAltName=${options.names ?? 'IP:127.0.0.1,DNS:localhost'}`,
  ];
  if (options.expired === true) {
    openssl('req', '-new', ...NEW_KEY, ...subject, '-keyout', keyFile, '-out', requestFile);
    const dated = ['-days', '-1', '-copy_extensions', 'copy'];
    openssl('x509', '-req', '-in', requestFile, '-signkey', keyFile, ...dated, '-out', certFile);
  } else {
    openssl('req', '-x509', '-days', '2', ...NEW_KEY, ...subject, '-keyout', keyFile, '-out', certFile);
  }
  return { certFile, keyFile, cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
}

function openssl(...words: readonly string[]): void {
  execFileSync('openssl', words, { stdio: 'ignore' });
}
