/**
 * The log as entries of systemd's journal, with a field for each thing that is known. Source: systemd's
 * "Native Journal Protocol", systemd.journal-fields(7).
 */

import { sendDatagram } from '../../kernel/unix-socket.ts';
import { isKernelError } from '../../netlink/libc.ts';
import type { LogEntry } from './entry.ts';

/** Where the journal takes entries. */
const socketPath = '/run/systemd/journal/socket';

/** Priorities of syslog(3). */
const priorities = { error: '3', info: '6' } as const;

/** Sends an entry. It waits for nobody. @throws Error that says why the journal did not take it. */
export function sendToJournal(entry: LogEntry): void {
  const datagram = Buffer.concat(fieldsOf(entry).map(([name, value]) => encodeField(name, value)));
  try {
    sendDatagram(`write the log to the journal at "${socketPath}"`, socketPath, datagram);
  } catch (error) {
    throw isKernelError(error, 'ENOENT', 'ECONNREFUSED')
      ? new Error(`${error.message}. Start systemd-journald, or set a file in CNI_LOG or /etc/cni/log.json`)
      : error;
  }
}

/** The fields of an entry. A field may occur several times. */
function fieldsOf(entry: LogEntry): [name: string, value: string][] {
  const { plugin, verb, ok, pod, result, error, undone = [], warnings = [] } = entry;
  const fields: [string, string | number | undefined][] = [
    ['MESSAGE', messageOf(entry)],
    ['PRIORITY', ok ? priorities.info : priorities.error],
    ['SYSLOG_IDENTIFIER', 'cni'],
    ['CNI_PLUGIN', plugin],
    ['CNI_COMMAND', verb],
    ['CNI_NETWORK', entry.network],
    ['CNI_CONTAINERID', entry.containerId],
    ['CNI_IFNAME', entry.ifname],
    ['CNI_NETNS', entry.netns],
    ['CNI_DURATION_MS', entry.durationMs],
    ['CNI_WAITED_MS', entry.waitedMs],
    ['CNI_PARENT', entry.parent],
    ['CNI_EXECUTABLE', entry.executable],
    ['K8S_POD_NAMESPACE', pod?.namespace],
    ['K8S_POD_NAME', pod?.name],
    ['K8S_POD_UID', pod?.uid],
    ...(result?.interfaces ?? []).map((name): [string, string] => ['CNI_RESULT_INTERFACE', name]),
    ...(result?.ips ?? []).map((ip): [string, string] => ['CNI_RESULT_IP', ip]),
    ['CNI_ERROR_CODE', error?.code],
    ['CNI_ERROR_MSG', error?.msg],
    ['CNI_ERROR_DETAILS', error?.details],
    ...undone.map(({ step, error: why }): [string, string] => [
      'CNI_UNDONE',
      why === undefined ? step : `${step}: failed: ${why}`,
    ]),
    ...warnings.map((text): [string, string] => ['CNI_WARNING', text]),
    ['TRACE_ID', entry.traceId],
    ['SPAN_ID', entry.spanId],
  ];
  return fields.flatMap(([name, value]) => (value === undefined ? [] : [[name, `${value}`]]));
}

function messageOf({ plugin, verb, network, containerId, ifname, durationMs, error }: LogEntry): string {
  const what = [
    `${plugin} ${verb}`,
    containerId && ` of ${containerId}`,
    ifname && ` ${ifname}`,
    network && ` on network ${network}`,
  ];
  const outcome = error ? `failed with code ${error.code}: ${error.msg}` : `done in ${durationMs} ms`;
  return `${what.filter(Boolean).join('')} ${outcome}`;
}

/** A value with line breaks is preceded by its length, so that no part of it can pass for a field. */
function encodeField(name: string, value: string): Buffer {
  const bytes = Buffer.from(value);
  if (!bytes.includes(0x0a)) return Buffer.concat([Buffer.from(`${name}=`), bytes, Buffer.of(0x0a)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.of(0x0a)]);
}
