/** What each tier may store, as the configuration says. Pure; the tiers and the simulation of them read it alike. */
import type { CacheConfig } from './config.js';

export interface MemoryLimits {
  readonly capacityBytes: number;
  readonly maxObjectBytes: number;
}

export function memoryLimits({ sizeBytes, maxObjectBytes }: CacheConfig['memory']): MemoryLimits {
  return { capacityBytes: sizeBytes, maxObjectBytes: Math.min(maxObjectBytes, sizeBytes) };
}

export interface DiskLimits {
  /** For entries: the rest of the size is for bodies that arrive. */
  readonly capacityBytes: number;
  readonly fillRoomBytes: number;
  readonly maxObjectBytes: number;
}

export function diskLimits({
  sizeBytes,
  fillRoomBytes,
  maxObjectBytes,
}: Pick<CacheConfig['disk'], 'sizeBytes' | 'fillRoomBytes' | 'maxObjectBytes'>): DiskLimits {
  const room = Math.min(fillRoomBytes, Math.floor(sizeBytes / 2));
  return {
    capacityBytes: sizeBytes - room,
    fillRoomBytes: room,
    maxObjectBytes: Math.min(maxObjectBytes, room),
  };
}

/** The admission `second_hit` remembers as many bytes as would fill the tier so many times. */
const REMEMBERED_CAPACITIES = 2;

export function rememberedBytes(capacityBytes: number): number {
  return REMEMBERED_CAPACITIES * capacityBytes;
}
