/** How `media-service dev` tells its edge where the page for people is served. */

/** The variable with the address; unset in production, where there is no page. */
export const PAGE_ADDRESS = 'MEDIA_SERVICE_PAGE';

/** The paths of the page: its document, all that it loads, and the reference of the interface. */
export function isPathOfPage(path: string): boolean {
  return path === '/' || path === '/docs' || path.startsWith('/page/');
}
