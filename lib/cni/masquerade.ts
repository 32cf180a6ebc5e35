/** Masquerading as bridge and ptp offer it: the configuration's keys, and the verbs' share in it. */

import { CniError, ErrorCode } from '../errors.ts';
import { defaultBackend } from '../firewall/backend.ts';
import { type MasqueradeBackend, masqueradeBackend, masqueradeBackends } from '../firewall/masquerade.ts';
import type { Call } from './call.ts';
import { knownAddresses } from './interface.ts';
import type { IPConfig } from './result.ts';
import { runAll, startBackground } from './steps.ts';

interface MasqueradeConfig {
  ipMasq?: boolean;
  ipMasqBackend?: string;
}

/**
 * The verbs' share of masquerading, which is nothing unless "ipMasq" asks for it. It overlaps with kernel work when it
 * is started first and awaited last.
 */
export function masquerade(call: Call<MasqueradeConfig>) {
  const { ipMasq = false, ipMasqBackend } = call.config;
  const chosen = () => masqueradeBackend(ipMasqBackend ?? defaultBackend(call.programs), call.programs);
  const { attachment } = call;
  return {
    /** Masquerades the addresses, and takes that back if ADD fails. */
    async add(ips: readonly IPConfig[]): Promise<void> {
      if (!ipMasq) return;
      const prefixes = ips.map(({ address }) => address);
      const backend = chosen();
      call.undo(() => backend.del(attachment, prefixes));
      await backend.add(attachment, prefixes);
    },
    /** Removes the rules of this attachment, of whichever backend made them. */
    async del(): Promise<void> {
      if (!ipMasq) return;
      await eachBackend(call, ipMasqBackend, (backend) => backend.del(attachment, knownAddresses(call)));
    },
    async check(): Promise<void> {
      if (!ipMasq) return;
      await chosen().check(attachment, knownAddresses(call));
    },
    /** @throws CniError NotAvailable when the backend cannot be used. */
    async status(): Promise<void> {
      if (!ipMasq) return;
      try {
        await chosen().probe();
      } catch (error) {
        throw new CniError(ErrorCode.NotAvailable, (error as Error).message);
      }
    },
    /** Removes the rules of attachments that are no more. */
    async gc(): Promise<void> {
      if (!ipMasq) return;
      await eachBackend(call, ipMasqBackend, (backend) =>
        backend.gc(call.config.name, call.validAttachments),
      );
    },
  };
}

/**
 * Unless the configuration fixes one, the node may have changed backends since the attachment was made. All start at once: the
 * program of the one runs beside the kernel work of the other.
 */
async function eachBackend(
  call: Call,
  configured: string | undefined,
  work: (backend: MasqueradeBackend) => Promise<void>,
): Promise<void> {
  const names = configured ? [configured] : masqueradeBackends;
  await runAll(
    call,
    ...names.map((name) => startBackground(() => work(masqueradeBackend(name, call.programs)))),
  );
}
