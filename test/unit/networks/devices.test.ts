import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { asDelegates } from '../../../lib/networks/choice.ts';
import { networkFrom } from '../../../lib/networks/conflist.ts';
import { Devices } from '../../../lib/networks/devices.ts';

/** Writes a checkpoint of the kubelet. @returns its path. */
function checkpoint(t: ExecutionContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'kubelet-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'kubelet_internal_checkpoint');
  writeFileSync(file, text);
  return file;
}

const entry = (PodUID: string, ResourceName: string, DeviceIDs: Record<string, string[]>) => ({
  ...{ PodUID, ContainerName: 'app', ResourceName, DeviceIDs, AllocResp: 'Cg==' },
});
const allocated = JSON.stringify({
  Data: {
    PodDeviceEntries: [
      entry('one', 'vendor.example/nic', { '0': ['0000:03:02.1', '0000:03:02.0'], '1': ['0000:81:00.1'] }),
      entry('one', 'vendor.example/other', { '-1': ['x'] }),
      entry('two', 'vendor.example/nic', { '0': ['0000:03:02.7'] }),
    ],
    RegisteredDevices: { 'vendor.example/nic': ['0000:03:02.0'] },
  },
  Checksum: 1,
});

test('a pod has its own devices of a resource, in the order of their names, each once', (t) => {
  const devices = new Devices('one', checkpoint(t, allocated));
  const taken = Array.from({ length: 4 }, () => devices.next('vendor.example/nic')?.id);
  t.deepEqual(taken, ['0000:03:02.0', '0000:03:02.1', '0000:81:00.1', undefined]);
  t.deepEqual(devices.next('vendor.example/other'), { id: 'x', info: undefined });
  t.is(devices.next('vendor.example/none'), undefined);
  t.is(new Devices('three', checkpoint(t, allocated)).next('vendor.example/nic'), undefined);
});

for (const [how, text] of [
  ['is torn', allocated.slice(0, 40)],
  ['is of something else', '{"Data":{"PodDeviceEntries":"x"}}'],
] as const)
  test(`the devices of a pod are not known when the file ${how}`, (t) => {
    const devices = new Devices('one', checkpoint(t, text));
    t.throws(() => devices.next('vendor.example/nic'), {
      message: /not known, as the kubelet's/,
      code: 11,
    } as never);
  });

test('each network of a resource gets a device, under every name by which plugins look for it', (t) => {
  const devices = new Devices('one', checkpoint(t, allocated));
  const network = networkFrom(
    { name: 'n', type: 'sriov', capabilities: { deviceID: true } },
    Buffer.from(''),
    '',
  );
  const call = { ifname: 'eth0', config: {}, context: { invocation: { args: '' } } } as never;
  const choices = ['nic', 'none', 'nic'].map((name) => ({ network, resourceName: `vendor.example/${name}` }));
  const delegates = asDelegates(call, choices, () => ['eth0', 'net1', 'net2'], devices);
  t.deepEqual(
    delegates.map(({ network: { plugins }, capabilityArgs }) => [
      ...[plugins[0]!.config.deviceID, plugins[0]!.config.pciBusID, capabilityArgs.deviceID],
    ]),
    [
      ['0000:03:02.0', '0000:03:02.0', '0000:03:02.0'],
      [undefined, undefined, undefined],
      ['0000:03:02.1', '0000:03:02.1', '0000:03:02.1'],
    ],
  );
});
