/** The terms of an upload link, applied to the upload that it opens. Without a link, nothing changes. */
import type { UploadTerms } from '../../src/access/upload-link.js';
import { Fault } from '../../src/errors.js';
import type { MetaStore, UploadOnce } from '../meta/store.js';
import { userOf } from '../meta/uploads.js';
import type { UploadConfig } from './config.js';
import type { UploadOptions } from './options.js';

interface Limited {
  readonly config: { readonly upload: UploadConfig };
}

/** The same deps with the limits of the link, where they are narrower than the configured ones. */
export function withinTerms<D extends Limited>(deps: D, terms: UploadTerms | undefined): D {
  if (terms === undefined) return deps;
  const { upload } = deps.config;
  const { types } = terms;
  const limited: UploadConfig = {
    ...upload,
    sizeMaxBytes: Math.min(upload.sizeMaxBytes, terms.sizeMaxBytes ?? upload.sizeMaxBytes),
    types: types === null ? upload.types : upload.types.filter((type) => types.includes(type)),
  };
  return { ...deps, config: { ...deps.config, upload: limited } };
}

/** Visibility and lifetime are those of the link. A client may name its file if the link does not. */
export function optionsWithin(options: UploadOptions, terms: UploadTerms | undefined): UploadOptions {
  if (terms === undefined) return options;
  return {
    public: terms.public,
    expiresInSeconds: terms.expiresInSeconds ?? undefined,
    filename: terms.filename ?? options.filename,
  };
}

export function onceOf(terms: UploadTerms | undefined): UploadOnce | undefined {
  return terms === undefined ? undefined : { link: terms.id, until: terms.expiresAt };
}

/** Refuses a used link before the body is read. The transaction of the upload decides again. */
export async function requireUnused(meta: Pick<MetaStore, 'usage'>, terms: UploadTerms | undefined): Promise<void> {
  if (terms === undefined) return;
  const { files } = await meta.usage(userOf(terms.id), terms.expiresAt);
  if (files > 0) throw linkUsed();
}

export function linkUsed(): Fault {
  return new Fault('forbidden', 'The upload link was used before.');
}
