/** Addresses of thumbnails for a width on the page and the pixels of the screen. Pure. */
import type { Variant } from './wire.js';

export interface ThumbnailSize {
  /** CSS pixels. */
  readonly width: number;
  /** Device pixels for each of them; 1 if it is left out. */
  readonly pixelRatio?: number;
}

/**
 * The address of the smallest thumbnail that covers the size. It names the width of a
 * variant, so that everyone who wants about this size has the same address and shares
 * what caches keep. Without variants it names the width itself.
 */
export function thumbnailUrl(
  thumbUrl: string,
  { width, pixelRatio = 1 }: ThumbnailSize,
  variants: readonly Variant[] = [],
): string {
  const wanted = Math.max(1, Math.ceil(width * pixelRatio));
  const widths = variants.map((variant) => variant.width).sort((left, right) => left - right);
  const chosen = widths.find((each) => each >= wanted) ?? widths.at(-1) ?? wanted;
  return `${thumbUrl}${thumbUrl.includes('?') ? '&' : '?'}w=${chosen}`;
}

/** For `srcset`: one address for each pixel ratio, without those that would be the same thumbnail again. */
export function thumbnailSrcset(
  thumbUrl: string,
  width: number,
  variants: readonly Variant[] = [],
  pixelRatios: readonly number[] = [1, 2, 3],
): string {
  const urls = new Map<string, number>();
  for (const pixelRatio of pixelRatios) {
    const url = thumbnailUrl(thumbUrl, { width, pixelRatio }, variants);
    if (!urls.has(url)) urls.set(url, pixelRatio);
  }
  return [...urls].map(([url, pixelRatio]) => `${url} ${pixelRatio}x`).join(', ');
}
