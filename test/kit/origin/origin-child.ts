/**
 * The command line with the code of the origin already loaded. It waits for its arguments in a message, and then runs as
 * if it had been started with them. Loading takes most of the time of a start.
 */
const loaded = import('../../../origin/main.js');

process.once('message', (given) => {
  process.argv.push(...(given as readonly string[]));
  void loaded.then(() => import('../../../src/cli.js'));
});
