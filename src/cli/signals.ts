/** Ctrl-C, and what schedulers send: asks for an end first, and the second time has it. */

/**
 * The first SIGINT or SIGTERM aborts the signal, for whoever works to keep what is done and stop. The second ends the process at once: by this
 * handler if both came within one step, else by the system's own, so that a step that hangs cannot hold it up.
 * @param note called with a line for the user at the first @param does what is done before the end, for that line
 */
export function stopOnSignals(note: (line: string) => void, does: string): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const handlers = (['SIGINT', 'SIGTERM'] as const).map((name) => ({ name, handler: () => take(name) }));
  const release = (): void => {
    for (const { name, handler } of handlers) process.off(name, handler);
  };
  const take = (name: 'SIGINT' | 'SIGTERM'): void => {
    if (controller.signal.aborted) process.exit(name === 'SIGINT' ? 130 : 143);
    controller.abort();
    note(`${name}: ${does}`);
    setImmediate(release);
  };
  for (const { name, handler } of handlers) process.on(name, handler);
  return { signal: controller.signal, release };
}
