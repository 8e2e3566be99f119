/** What an edge makes of its secrets, and makes anew after a reload: its own proof, the check of other edges, the key of links. */
import type { AccessConfig } from '../src/access/config.js';
import { createEdgeCheck, edgeProof } from '../src/access/edge-proof.js';
import type { LinkKey } from '../src/access/link.js';

export interface LiveSettings {
  /** Proves this edge to the origin; empty in generic mode. */
  readonly proof: string;
  /** The key that signs links; undefined: none. */
  readonly linkKey: LinkKey | undefined;
  /** Whether a value of `edge-authorization` proves an edge behind this one. Always false in generic mode. */
  isEdge(proof: string | undefined): boolean;
  /** `access`: null in generic mode. */
  renew(access: AccessConfig | null): void;
}

export function createLiveSettings(access: AccessConfig | null): LiveSettings {
  let secrets = secretsOf(access);
  return {
    get proof() {
      return secrets.proof;
    },
    get linkKey() {
      return secrets.linkKey;
    },
    isEdge: (proof) => secrets.isEdge(proof),
    renew(changed) {
      secrets = secretsOf(changed);
    },
  };
}

function secretsOf(access: AccessConfig | null): Pick<LiveSettings, 'proof' | 'isEdge' | 'linkKey'> {
  if (access === null) return { proof: '', isEdge: () => false, linkKey: undefined };
  const { edgeSecret, edgeSecretsAccepted, links } = access;
  return {
    proof: edgeProof(edgeSecret),
    isEdge: createEdgeCheck([edgeSecret, ...edgeSecretsAccepted]),
    linkKey: links.secrets[0],
  };
}
