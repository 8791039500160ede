// Command hostpath-provisioner gives a PersistentVolumeClaim of class microk8s-hostpath a folder of the
// node its first pod was scheduled to. It stands in for the image cdkbot/hostpath-provisioner of MicroK8s'
// add-on hostpath-storage, with the same provisioner name, environment and folder names.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const name = "microk8s.io/hostpath"

type provisioner struct {
	node string // the node this pod runs on: the only one whose folders it can touch
	root string
}

// Provision names the folder and binds the volume to the claim's node. On another node than ours the
// kubelet makes the folder, readable by root alone: enough for the one-node clusters this is for.
func (p provisioner) Provision(
	_ context.Context, options controller.ProvisionOptions,
) (*core.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if options.SelectedNodeName == "" {
		return nil, controller.ProvisioningFinished, errors.New("no pod uses the claim yet")
	}
	node := options.SelectedNodeName
	folder := filepath.Join(p.root, claim.Namespace+"-"+claim.Name+"-"+options.PVName)
	if node == p.node {
		if err := os.Mkdir(folder, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, controller.ProvisioningFinished, err
		}
		if err := os.Chmod(folder, 0o777); err != nil { // what the umask took away
			return nil, controller.ProvisioningFinished, err
		}
	}
	kind := core.HostPathDirectoryOrCreate
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      claim.Spec.Resources.Requests,
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: folder, Type: &kind},
			},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{
				NodeSelectorTerms: []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{{
					Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{node},
				}}}},
			}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete removes the folder. One on another node stays, and the log says so.
func (p provisioner) Delete(_ context.Context, volume *core.PersistentVolume) error {
	folder := volume.Spec.HostPath.Path
	if filepath.Dir(folder) != filepath.Clean(p.root) {
		return errors.New(folder + " is not one of ours")
	}
	if _, err := os.Stat(folder); errors.Is(err, os.ErrNotExist) {
		log.Printf("%s: not on %s, left alone", folder, p.node)
		return nil
	}
	return os.RemoveAll(folder)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	controller.NewProvisionController(
		ctx, kubernetes.NewForConfigOrDie(config), name,
		provisioner{node: os.Getenv("NODE_NAME"), root: os.Getenv("PV_DIR")},
		controller.LeaderElection(false),
	).Run(ctx)
}
