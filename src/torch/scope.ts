/** Lifetimes: scopes free what a computation made, noGrad records nothing. Both are synchronous: a step is one scope. */
import { adopt, engine, enterScope, isTensor, leaveScope } from './call.js';
import type { Tensor } from './tensor.js';

/**
 * Runs `fn` and frees every tensor made inside but those in what it returns: a tensor, or arrays, plain objects and Maps of them, however
 * nested. Scopes nest: what is returned belongs to the scope around, or, outside of all, to the garbage collector. If `fn` throws, all is
 * freed.
 * @throws TypeError if `fn` returns a promise: its tensors would be freed before it goes on.
 */
export function scope<T>(fn: () => T): T {
  const around = enterScope();
  let kept: Tensor[] = [];
  try {
    const result = fn();
    kept = tensorsIn(result, 'scope');
    return result;
  } finally {
    leaveScope(kept, around);
  }
}

/** Takes a tensor out of all scopes: it lives until dispose(), or as long as its object. */
export function keep<T extends Tensor>(tensor: T): T {
  engine().keep(tensor.handle);
  adopt(tensor);
  return tensor;
}

/** Runs `fn` without recording for gradients. @throws TypeError if it returns a promise. */
export function noGrad<T>(fn: () => T): T {
  const before = engine().gradMode(false);
  try {
    const result = fn();
    if (result instanceof Promise) throw new TypeError('noGrad: the function returned a promise; it must be synchronous');
    return result;
  } finally {
    engine().gradMode(before);
  }
}

/** Whether operators are being recorded. */
export const isGradEnabled = (): boolean => engine().gradMode();

/** The tensors in a value of the kind that `scope` returns. @throws TypeError for a promise, naming `what` */
export function tensorsIn(value: unknown, what: string): Tensor[] {
  if (value === undefined) return [];
  if (isTensor(value)) return [value];
  const found: Tensor[] = [];
  const seen = new Set<object>();
  const open: unknown[] = [value];
  while (open.length > 0) {
    const next = open.pop();
    if (typeof next !== 'object' || next === null || ArrayBuffer.isView(next) || seen.has(next)) continue;
    seen.add(next);
    if (isTensor(next)) found.push(next);
    else if (next instanceof Promise) throw new TypeError(`${what}: the function returned a promise; it must be synchronous`);
    else if (Array.isArray(next) || next instanceof Map) for (const each of next.values()) open.push(each);
    else if (Object.getPrototypeOf(next) === Object.prototype || Object.getPrototypeOf(next) === null)
      for (const each of Object.values(next)) open.push(each);
  }
  return found;
}
