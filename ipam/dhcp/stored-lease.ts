/** A lease as it is written down. */

import { array, decode, integer, json, object, required, string } from '../../lib/cni/schema.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import { type LeaseOwner, ownerSchema } from './owner.ts';

/** What is in a lease's file. */
export interface StoredLease {
  /** The boot of the host in which it was written. */
  boot: string;
  owner: LeaseOwner;
  /** Identifies its interface. Earlier releases do not write it. */
  link?: string | undefined;
  options: { clientId: number[]; request: number[]; provide: [number, number[]][] };
  server: string;
  /** In milliseconds since that boot. */
  times: { renewAt: number; rebindAt: number; expiresAt: number };
  /** A result of CNI version 1.1.0. */
  result: unknown;
}

const byte = integer({ min: 0, max: 255 });
const time = required(integer({ min: 0, max: Number.MAX_SAFE_INTEGER }));
const schema = object({
  boot: string(),
  owner: required(ownerSchema),
  link: string(),
  options: required(
    object({
      clientId: required(array(byte)),
      request: required(array(byte)),
      provide: required(array(array(json()))),
    }),
  ),
  server: required(string()),
  times: required(object({ renewAt: time, rebindAt: time, expiresAt: time })),
  result: json(),
});

/** Reads a lease's file. @throws Error when it is torn, or not one. */
export function readStoredLease(text: string) {
  const { options, boot, times, ...rest } = decode(schema, JSON.parse(text));
  const provide = new Map(
    options.provide.map(([number, value], i) => {
      const where = `options.provide[${i}]`;
      return [byte.decode(number, where), Uint8Array.from(array(byte).decode(value, where))] as const;
    }),
  );
  return {
    ...rest,
    ...(boot ? { boot, times } : fromTimeOfDay(times)),
    clientId: options.clientId,
    request: options.request,
    provide,
  };
}

/** Times as earlier releases wrote them down: as times of day, and without the boot. */
function fromTimeOfDay({ renewAt, rebindAt, expiresAt }: StoredLease['times']) {
  const bootedAt = Date.now() - msSinceBoot();
  const times = {
    renewAt: renewAt - bootedAt,
    rebindAt: rebindAt - bootedAt,
    expiresAt: expiresAt === Number.MAX_SAFE_INTEGER ? expiresAt : expiresAt - bootedAt,
  };
  return { boot: undefined, times };
}
