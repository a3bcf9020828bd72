export interface SpyCall<Args extends unknown[] = unknown[], R = unknown> {
  args: Args;
  returned?: R;
  error?: Error;
}
export interface Spy<Args extends unknown[] = unknown[], R = unknown> {
  (...args: Args): R;
  calls: SpyCall<Args, R>[];
  restored: boolean;
  restore(): void;
}
export function spy<Args extends unknown[], R>(
  fn?: (...args: Args) => R,
): Spy<Args, R>;
export function assertSpyCalls(spy: Spy, expected: number): void;
