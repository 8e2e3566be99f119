/** How the metadata store makes events, by the configuration; undefined where no webhooks are configured. */

import type { OriginConfig } from '../config.js';
import type { EventMaker } from '../meta/outbox/outbox.js';
import { describeMedia } from '../respond/media-json.js';

export function eventMakerOf({
  webhooks,
  baseUri,
  thumbs,
}: Pick<OriginConfig, 'webhooks' | 'baseUri' | 'thumbs'>): EventMaker | undefined {
  if (webhooks.url === null) return undefined;
  return { describe: (media) => describeMedia(media, baseUri), waitsForThumbs: thumbs.enabled };
}
