//! Lua values that are held from outside, and how they are let go of.

use std::sync::Arc;

use super::vm::Vm;

/// Lua values that outlive a call. They are let go on a script thread and under the VM's turn: letting go of one waits
/// for the VM, and the control loop must not.
pub(super) struct Held<T: Send + 'static> {
    value: Option<T>,
    vm: Arc<Vm>,
}

impl<T: Send + 'static> Held<T> {
    /// Holds values of a VM.
    pub(super) const fn new(vm: Arc<Vm>, value: T) -> Self {
        Self { value: Some(value), vm }
    }

    /// The VM.
    pub(super) const fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// The values.
    pub(super) fn get(&self) -> &T {
        self.value.as_ref().expect("invariant: values are taken out by drop alone")
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        let (value, vm) = (self.value.take(), Arc::clone(&self.vm));
        if vm.let_go_here {
            return;
        }
        let pool = Arc::clone(&vm.pool);
        drop(pool.spawn(async move {
            vm.in_turn(|_| drop(value)).await;
        }));
    }
}
