/**
 * From an operator's name to a call: each name is looked up once, each result becomes a Tensor that the open scope owns, or, outside of
 * scopes, the garbage collector. The hot path of everything: an object and a call into the addon, nothing else.
 */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Handle, type Native, native, type Result, type Value } from './native.js';
import type { Tensor } from './tensor.js';

let addon: Native | undefined;
let TensorClass: new (handle: Handle) => Tensor;

/** tensor.ts gives its class at start: importing it here would make the two files wait for each other. */
export function defineTensor(tensorClass: new (handle: Handle) => Tensor): void {
  TensorClass = tensorClass;
}

/** Whether a value is a tensor (alive or not). */
export const isTensor = (value: unknown): value is Tensor => value instanceof TensorClass;

/** The addon, with what it needs from this side set. */
export function engine(): Native {
  if (!addon) {
    addon = native();
    addon.onMemory(reclaim);
  }
  return addon;
}

/** An operator of the dispatcher: `aten::add.Tensor`. Looked up at its first call. */
export class Op {
  private index = -1;
  constructor(readonly name: string) {}

  /** Calls it; tensors are handles. @throws Error, TypeError naming the operator, its argument and the shapes. */
  call(a?: Value, b?: Value, c?: Value, d?: Value, ...more: Value[]): Result {
    if (this.index < 0) this.index = engine().resolve(this.name);
    const bridge = addon as Native;
    return more.length === 0 ? bridge.call(this.index, a, b, c, d) : bridge.call(this.index, a, b, c, d, ...more);
  }

  /** Calls one that returns a tensor. */
  one(a?: Value, b?: Value, c?: Value, d?: Value, ...more: Value[]): Tensor {
    return wrap(this.call(a, b, c, d, ...more) as Handle);
  }

  /** Calls one that returns several tensors or a list of them. */
  many(a?: Value, b?: Value, c?: Value, d?: Value, ...more: Value[]): Tensor[] {
    return (this.call(a, b, c, d, ...more) as Handle[]).map(wrap);
  }

  /** Whether this libtorch has it. */
  get exists(): boolean {
    return engine().has(this.name);
  }
}

/** The handle of a tensor. What is not a tensor goes on as it is: the addon's error names the operator, the argument and what it found. */
export function h(tensor: Tensor): Handle {
  return tensor instanceof TensorClass ? tensor.handle : (tensor as unknown as Handle);
}

/** The handle, or undefined for a tensor that is not given. */
export const optional = (tensor: Tensor | null | undefined): Handle | undefined =>
  tensor === null || tensor === undefined ? undefined : h(tensor);

/** The handles of a list. */
export function list(tensors: readonly Tensor[]): Value {
  return Array.isArray(tensors) ? tensors.map(h) : (tensors as unknown as Value);
}

// Ownership. Inside a scope the addon frees what was made there. Outside, a tensor lives as long as its object.

let depth = 0;
const finalizer = new FinalizationRegistry<Handle>((handle) => engine().dispose(handle));

/** A Tensor for a handle that the addon has just made. */
export function wrap(handle: Handle): Tensor {
  const tensor = new TensorClass(handle);
  if (depth === 0) adopt(tensor);
  return tensor;
}

/** Hands a tensor that no scope owns to the garbage collector. */
export function adopt(tensor: Tensor): void {
  if (engine().adopt(tensor.handle, tensor)) finalizer.register(tensor, tensor.handle, tensor);
}

/** Frees a tensor now. */
export function dispose(tensor: Tensor): void {
  if (engine().dispose(tensor.handle)) finalizer.unregister(tensor);
}

/** Returns the depth to leave it to. */
export function enterScope(): number {
  engine().beginScope();
  return depth++;
}

/** Ends the scopes deeper than `around`: frees all they made but `kept`, which move to the scope around or to the outside. */
export function leaveScope(kept: readonly Tensor[], around: number): void {
  // A depth, not one less: where the stack was full an inner scope may have got nowhere near its own end.
  depth = around;
  engine().endScope(
    kept.map((tensor) => tensor.handle),
    around,
  );
  if (depth === 0) kept.forEach(adopt);
}

/** Frees tensors whose objects are garbage, without waiting for the event loop to run finalizers. The addon calls it when memory runs out. */
function reclaim(): void {
  collect();
  engine().sweep();
  engine().emptyCache();
}

let collect = (): void => {
  // V8 lets a program ask for its collector at run time; without it, being out of memory would wait for a chance collection.
  setFlagsFromString('--expose-gc');
  const gc = globalThis.gc ?? (runInNewContext('gc') as () => void);
  collect = () => gc();
  collect();
};
