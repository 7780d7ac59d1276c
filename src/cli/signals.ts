/** Ctrl-C, and what schedulers send: asks for an end first, and the second time has it. */

/** Milliseconds within which a second signal is the echo of the first: npx passes Ctrl-C on to a process that the terminal has sent it to already. */
const ECHO = 300;

/**
 * The first SIGINT or SIGTERM aborts the signal, for whoever works to keep what is done and stop. The second ends the process at once, by the
 * system's own handler, so that a step that hangs cannot hold it up. What comes before the first is answered, or as its echo, is the same wish: to
 * lose the work to it would be worse.
 * @param note called with a line for the user at the first @param does what is done before the end, for that line
 */
export function stopOnSignals(note: (line: string) => void, does: string): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const handlers = (['SIGINT', 'SIGTERM'] as const).map((name) => ({ name, handler: () => take(name) }));
  const release = (): void => {
    for (const { name, handler } of handlers) process.off(name, handler);
  };
  const take = (name: 'SIGINT' | 'SIGTERM'): void => {
    if (controller.signal.aborted) return;
    controller.abort();
    note(`${name}: ${does}`);
    // Not by a timer, which a long step would hold up, and the second signal with it.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ECHO);
    setImmediate(release);
  };
  for (const { name, handler } of handlers) process.on(name, handler);
  return { signal: controller.signal, release };
}
