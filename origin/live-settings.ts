/**
 * Settings that can be reloaded while the origin runs: the secrets of edges, the
 * keys of links, and which requests are logged. All others need a restart.
 */
import type { AccessConfig } from '../src/access/config.js';
import { createEdgeCheck } from '../src/access/edge-proof.js';
import type { LinkKey } from '../src/access/link.js';
import type { LogConfig } from '../src/log.js';

/** Their paths in the configuration. */
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
  /** The first one signs; links signed with any of them are valid. */
  linkKeys(): readonly LinkKey[];
  readonly log: LogConfig;
  renew(settings: Settings): void;
}

export function createLiveSettings(settings: Settings): LiveSettings {
  let current = read(settings);
  const log = { ...settings.log };
  return {
    isEdge: (proof) => current.isEdge(proof),
    linkKeys: () => current.linkKeys,
    log,
    renew(changed) {
      current = read(changed);
      log.requests = changed.log.requests;
    },
  };
}

function read({ access }: Pick<Settings, 'access'>) {
  return {
    isEdge: createEdgeCheck([access.edgeSecret, ...access.edgeSecretsAccepted]),
    linkKeys: access.links.secrets,
  };
}
