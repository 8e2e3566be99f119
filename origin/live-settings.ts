/**
 * What may change while the origin runs: by which secrets edges prove themselves
 * and links are signed, and which requests are logged. Everything else waits for
 * a restart.
 */
import type { AccessConfig } from '../src/access/config.js';
import { createEdgeCheck } from '../src/access/edge-proof.js';
import type { LinkKey } from '../src/access/link.js';
import type { LogConfig } from '../src/log.js';

/** Where these stand among all settings. */
export const LIVE_PATHS = [
  'access.edgeSecret',
  'access.edgeSecretsAccepted',
  'access.links.secrets',
  'log.requests',
] as const;

interface Settings {
  readonly log: LogConfig;
  readonly access: AccessConfig;
}

export interface LiveSettings {
  /** Whether a value of `edge-authorization` proves an edge. */
  readonly isEdge: (proof: string | undefined) => boolean;
  /** The first signs, every one opens. */
  linkKeys(): readonly LinkKey[];
  readonly requests: () => LogConfig['requests'];
  renew(settings: Settings): void;
}

export function createLiveSettings(settings: Settings): LiveSettings {
  let current = read(settings);
  return {
    isEdge: (proof) => current.isEdge(proof),
    linkKeys: () => current.linkKeys,
    requests: () => current.requests,
    renew(changed) {
      current = read(changed);
    },
  };
}

function read({ log, access }: Settings) {
  return {
    isEdge: createEdgeCheck([access.edgeSecret, ...access.edgeSecretsAccepted]),
    linkKeys: access.links.secrets,
    requests: log.requests,
  };
}
