/** What an origin makes of its secrets, and makes anew after a reload: the check of edges, and the keys of links. */
import type { AccessConfig } from '../src/access/config.js';
import { createEdgeCheck } from '../src/access/edge-proof.js';
import type { LinkKey } from '../src/access/link.js';

interface Settings {
  readonly access: Pick<AccessConfig, 'edgeSecret' | 'edgeSecretsAccepted' | 'links'>;
}

export interface LiveSettings {
  /** Whether a value of `edge-authorization` proves an edge. */
  readonly isEdge: (proof: string | undefined) => boolean;
  /** The first one signs; links signed with any of them are valid. */
  linkKeys(): readonly LinkKey[];
  renew(settings: Settings): void;
}

export function createLiveSettings(settings: Settings): LiveSettings {
  let current = read(settings);
  return {
    isEdge: (proof) => current.isEdge(proof),
    linkKeys: () => current.linkKeys,
    renew(changed) {
      current = read(changed);
    },
  };
}

function read({ access }: Settings) {
  return {
    isEdge: createEdgeCheck([access.edgeSecret, ...access.edgeSecretsAccepted]),
    linkKeys: access.links.secrets,
  };
}
