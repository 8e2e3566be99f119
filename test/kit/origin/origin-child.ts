/**
 * The command line, with all that an origin loads in memory already: waits for
 * its arguments and then runs as if it had been started with them. Loading is
 * most of a start, and needs no waiting for where the next start is foreseen.
 */
const loaded = import('../../../origin/main.js');

process.once('message', (given) => {
  process.argv.push(...(given as readonly string[]));
  void loaded.then(() => import('../../../src/cli.js'));
});
