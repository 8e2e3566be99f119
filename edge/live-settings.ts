/** The settings of an edge that a reload may change, as they are now. */
import type { AccessConfig } from '../src/access/config.js';
import { createEdgeCheck, edgeProof } from '../src/access/edge-proof.js';
import type { LinkKey } from '../src/access/link.js';
import type { LogConfig } from '../src/log.js';
import { type EdgeConfig, type EdgePolicy, POLICY_PATHS, policyOf } from './config.js';

export const LIVE_PATHS = [
  ...POLICY_PATHS,
  'access.value.edgeSecret',
  'access.value.edgeSecretsAccepted',
  'access.value.links.secrets',
  'log.requests',
];

export interface LiveSettings {
  readonly policy: EdgePolicy;
  readonly log: LogConfig;
  /** Proves this edge to the origin; empty in generic mode. */
  readonly proof: string;
  /** The key that signs links; undefined: none. */
  readonly linkKey: LinkKey | undefined;
  /** Whether a value of `edge-authorization` proves an edge behind this one. Always false in generic mode. */
  isEdge(proof: string | undefined): boolean;
  /** `access`: null in generic mode. */
  renew(config: EdgeConfig, log: LogConfig, access: AccessConfig | null): void;
}

export function createLiveSettings(config: EdgeConfig, log: LogConfig, access: AccessConfig | null): LiveSettings {
  let policy = policyOf(config);
  let secrets = secretsOf(access);
  const live = { ...log };
  return {
    get policy() {
      return policy;
    },
    log: live,
    get proof() {
      return secrets.proof;
    },
    get linkKey() {
      return secrets.linkKey;
    },
    isEdge: (proof) => secrets.isEdge(proof),
    renew(changed, changedLog, changedAccess) {
      policy = policyOf(changed);
      live.requests = changedLog.requests;
      secrets = secretsOf(changedAccess);
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
