/** MAC addresses that runtimes and configurations ask for. */

import { parseMac } from '../kernel/mac.ts';

/** @returns the first of the candidates that is set. @throws Error when it is not a MAC address. */
export function requestedMac(...candidates: (string | undefined)[]): string | undefined {
  const mac = candidates.find((one) => one);
  if (mac && !parseMac(mac))
    throw new Error(
      `The requested MAC address "${mac}" is not a valid MAC address. Write it like "0a:58:0a:01:00:05"`,
    );
  return mac;
}
