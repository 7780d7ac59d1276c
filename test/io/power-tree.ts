/**
 * The files and folders of a simulated disk, as the processes see them and as a power cut leaves them. Each file has its content and the one
 * of its last sync, each folder its names and those of its last sync with the changes since.
 */

export interface File {
  readonly kind: 'file';
  content: Uint8Array;
  /** Of the last sync. */
  durable: Uint8Array;
  /** From here on the two may differ. */
  dirtyFrom: number;
  modified: number;
}

export interface Folder {
  readonly kind: 'folder';
  entries: Map<string, Entry>;
  durable: Map<string, Entry>;
  /** What was done to the names since the last sync, in order. */
  pending: Change[];
  modified: number;
}

export type Entry = File | Folder;

/** One operation on the names of a folder, whole or undone. */
export interface Change {
  readonly remove?: readonly [name: string, entry: Entry];
  readonly add?: readonly [name: string, entry: Entry];
  /** The other half of a rename from folder to folder: the old name never goes unless the new one came. */
  readonly after?: Change;
  kept: boolean;
}

/** Bytes that a device writes together, small so that small files are garbled in parts. */
const SECTOR = 16;
/** A machine is off for an hour, in milliseconds. */
const OFF = 3_600_000;

export class Tree {
  constructor(readonly root: Folder = newFolder()) {}

  /**
   * The power goes and comes back, and the machine starts; all files are an hour older.
   * @param seed chooses what becomes of all that was not synced: 0 loses it, 1 keeps it, others mix
   */
  powerLoss(seed: number): void {
    const random = randomOf(seed);
    const seen = new Set<Entry>();
    const settle = (entry: Entry): void => {
      if (seen.has(entry)) return;
      seen.add(entry);
      entry.modified -= OFF;
      if (entry.kind === 'file') {
        settleFile(entry, seed, random);
        return;
      }
      for (const change of entry.pending) apply(change, entry.durable);
      entry.pending = [];
      entry.entries = new Map(entry.durable);
      for (const child of entry.entries.values()) settle(child);
    };
    // A change may wait for one of another folder, so all are chosen before any is made.
    const changes = this.folders().flatMap(({ pending }) => pending);
    for (const change of changes) change.kept = seed < 2 ? seed === 1 : random() < 0.5;
    // A folder has one place, a file may for once have two names.
    for (const change of changes)
      if (change.after) change.kept = change.after.kept && (change.kept || change.remove?.[1].kind === 'folder');
    settle(this.root);
  }

  /** A copy with a life of its own. */
  clone(): Tree {
    const copies = new Map<Entry, Entry>();
    const changes = new Map<Change, Change>();
    const copyChange = (change: Change): Change => {
      let copied = changes.get(change);
      if (!copied) {
        const half = (part: Change['add']): Change['add'] => part && [part[0], copy(part[1])];
        const { after, kept } = change;
        copied = { remove: half(change.remove), add: half(change.add), kept, ...(after && { after: copyChange(after) }) };
        changes.set(change, copied);
      }
      return copied;
    };
    const copyAll = (map: Map<string, Entry>): Map<string, Entry> => new Map([...map].map(([name, entry]) => [name, copy(entry)]));
    const copy = (entry: Entry): Entry => {
      const done = copies.get(entry);
      if (done) return done;
      const copied: Entry = { ...entry };
      copies.set(entry, copied);
      if (copied.kind === 'folder') {
        copied.entries = copyAll(copied.entries);
        copied.durable = copyAll(copied.durable);
        copied.pending = copied.pending.map(copyChange);
      }
      return copied;
    };
    return new Tree(copy(this.root) as Folder);
  }

  /** The content, or the names, are safe from now on. */
  sync(entry: Entry): void {
    if (entry.kind === 'file') {
      entry.durable = entry.content;
      entry.dirtyFrom = entry.content.length;
      return;
    }
    for (const { after } of entry.pending) {
      const there = after && this.folders().find(({ pending }) => pending.includes(after));
      if (!after || !there) continue;
      after.kept = true;
      apply(after, there.durable);
      there.pending = there.pending.filter((other) => other !== after);
    }
    for (const change of entry.pending) change.kept = true;
    entry.durable = new Map(entry.entries);
    entry.pending = [];
  }

  /** Every folder that names lead to, now or after a power cut. */
  folders(): Folder[] {
    const all = new Set<Folder>([this.root]);
    for (const folder of all) {
      const named = [...folder.entries.values(), ...folder.durable.values(), ...folder.pending.flatMap(({ add }) => (add ? [add[1]] : []))];
      for (const entry of named) if (entry.kind === 'folder') all.add(entry);
    }
    return [...all];
  }
}

export function newFolder(): Folder {
  return { kind: 'folder', entries: new Map(), durable: new Map(), pending: [], modified: Date.now() };
}

/** Makes a change now, and after a power cut perhaps. */
export function change(folder: Folder, what: Change): void {
  apply({ ...what, kept: true }, folder.entries);
  folder.pending.push(what);
  folder.modified = Date.now();
}

function apply({ remove, add, kept }: Change, names: Map<string, Entry>): void {
  if (!kept) return;
  // Another thing of that name may be there, if what put this one there was lost.
  if (remove && names.get(remove[0]) === remove[1]) names.delete(remove[0]);
  if (add) names.set(add[0], add[1]);
}

/** What a power cut leaves of a file. */
function settleFile(file: File, seed: number, random: () => number): void {
  const { content, durable, dirtyFrom } = file;
  const below = (n: number): number => Math.floor(random() * n);
  const choice = seed < 2 ? seed : below(4);
  if (choice === 0) file.content = durable;
  else if (choice === 2) file.content = content.slice(0, dirtyFrom + below(content.length - dirtyFrom + 1));
  else if (choice === 3) {
    const garbled = new Uint8Array(random() < 0.5 ? durable.length : content.length);
    garbled.set(content.subarray(0, Math.min(dirtyFrom, garbled.length)));
    for (let at = dirtyFrom; at < garbled.length; ) {
      const end = Math.min(garbled.length, (Math.floor(at / SECTOR) + 1) * SECTOR);
      const source = [content, durable, new Uint8Array(0), Uint8Array.from({ length: end }, () => below(256))][below(4)]!;
      garbled.set(source.subarray(at, end), at);
      at = end;
    }
    file.content = garbled;
  }
  file.durable = file.content;
  file.dirtyFrom = file.content.length;
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
