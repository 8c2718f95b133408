// Fields of JSON that somebody else may have written: each is checked, nothing is trusted, and what is missing or of the
// wrong type takes the value that is given for it.

type Json = Readonly<Record<string, unknown>>;

/** A part of the contract before it is read: the fields have their names, and hold anything. */
export type Unread<T> = { readonly [K in keyof T]?: unknown };

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function text(value: unknown, fallback = ""): string {
  return typeof value === "string" ? value : fallback;
}

export function textOrNull(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

export function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

export function integer(value: unknown, fallback: number): number {
  return typeof value === "number" && Number.isInteger(value) ? value : fallback;
}

export function truth(value: unknown): boolean | null {
  return typeof value === "boolean" ? value : null;
}

export function oneOf<T extends string>(value: unknown, allowed: readonly T[], fallback: T): T {
  return allowed.find((word) => word === value) ?? fallback;
}

/** Those of the words that are known. */
export function words<T extends string>(value: unknown, allowed: readonly T[]): T[] {
  return texts(value).flatMap((word) => allowed.filter((known) => known === word));
}

export function list<T>(value: unknown, read: (item: Json, index: number) => T): T[] {
  return Array.isArray(value) ? value.filter(isObject).map(read) : [];
}

export function numbers(value: unknown): number[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "number") : [];
}

export function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}
