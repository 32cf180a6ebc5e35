/** MAC addresses that runtimes and configurations ask for. */

import { formatMac, parseMac } from '../kernel/mac.ts';

/**
 * @returns the first of the candidates that is set, in lower case and with colons.
 * @throws Error when it is not a MAC address.
 */
export function requestedMac(...candidates: (string | undefined)[]): string | undefined {
  const mac = candidates.find((one) => one);
  if (!mac) return undefined;
  const bytes = parseMac(mac);
  if (bytes) return formatMac(bytes);
  throw new Error(
    `The requested MAC address "${mac}" is not a valid MAC address. Write it like "0a:58:0a:01:00:05"`,
  );
}
