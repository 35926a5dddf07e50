import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.reflect.Field;
import java.net.BindException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.ByteBuffer;
import java.nio.channels.FileLock;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.ZipFile;

/** Prints like a server that starts, and dies for real, as it is told. */
public class Died {
    static final List<Object> KEPT = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        info("Starting minecraft server version 1.20.1");
        switch (args[0]) {
            case "heap":
                while (true) KEPT.add(new byte[1 << 20]);
            case "metaspace":
                URL[] here = {Died.class.getProtectionDomain().getCodeSource().getLocation()};
                while (true) KEPT.add(new URLClassLoader(here, null).loadClass("Died"));
            case "direct":
                while (true) KEPT.add(ByteBuffer.allocateDirect(8 << 20));
            case "threads":
                while (true) {
                    Thread thread = new Thread(Died::sleep);
                    thread.setDaemon(true);
                    thread.start();
                }
            case "stack":
                System.out.println(deeper(0));
                return;
            case "segv":
                Field field = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe");
                field.setAccessible(true);
                ((sun.misc.Unsafe) field.get(null)).putAddress(8, 1);
                return;
            case "bind":
                bind(Integer.parseInt(args[1]));
                return;
            case "lock":
                lock(Path.of("world/session.lock"));
                return;
            case "disk":
                fill(new File(args[1]));
                return;
            case "eula":
                eula();
                return;
            case "mods":
                mods();
                return;
            case "chat":
                chat(Integer.parseInt(args[1]));
                return;
            case "bind-later":
                waitForGo();
                bind(Integer.parseInt(args[1]));
                return;
            default:
                System.exit(Integer.parseInt(args[0]));
        }
    }

    static void info(String text) {
        System.out.println("[12:00:00] [Server thread/INFO]: " + text);
    }

    static void error(String text) {
        System.out.println("[12:00:00] [Server thread/ERROR]: " + text);
    }

    static void warn(String text) {
        System.out.println("[12:00:00] [Server thread/WARN]: " + text);
    }

    static int deeper(int depth) {
        return deeper(depth + 1) + 1;
    }

    static void sleep() {
        try {
            Thread.sleep(600_000);
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    /** Lets a test put something into the folder first. */
    static void waitForGo() throws InterruptedException {
        while (!new File("go").exists()) Thread.sleep(20);
    }

    /** Repeats what a test says that players wrote, then leaves without a word of its own. */
    static void chat(int code) throws Exception {
        info("Done (0.1s)! For help, type \"help\"");
        waitForGo();
        for (String line : Files.readAllLines(Path.of("chat.txt"))) System.out.println(line);
        System.exit(code);
    }

    static void mods() throws Exception {
        info("Loading mods");
        waitForGo();
        File[] jars = new File("mods").listFiles((folder, name) -> name.endsWith(".jar"));
        for (File jar : jars == null ? new File[0] : jars) {
            try (ZipFile opened = new ZipFile(jar)) {
                info("Found " + jar.getName());
            } catch (IOException damaged) {
                System.out.println("[12:00:00] [main/ERROR]: Failed to start Minecraft");
                new RuntimeException("Error analyzing [" + jar.getAbsolutePath() + "]: " + damaged, damaged)
                        .printStackTrace(System.out);
                System.exit(1);
            }
        }
        info("Done (0.1s)! For help, type \"help\"");
        sleep();
    }

    static void bind(int port) throws Exception {
        info("Starting Minecraft server on *:" + port);
        try (ServerSocket socket = new ServerSocket()) {
            socket.bind(new InetSocketAddress("127.0.0.1", port));
        } catch (BindException taken) {
            warn("**** FAILED TO BIND TO PORT!");
            warn("The exception was: " + taken);
            warn("Perhaps a server is already running on that port?");
        }
        System.exit(1);
    }

    static void lock(Path path) throws Exception {
        Files.createDirectories(path.getParent());
        info("Preparing level \"world\"");
        waitForGo();
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            FileLock lock = file.getChannel().tryLock();
            if (lock == null) {
                error("Failed to start the minecraft server");
                new IllegalStateException(path.toAbsolutePath()
                        + ": already locked (possibly by other Minecraft instance?)").printStackTrace(System.out);
            }
        }
        System.exit(1);
    }

    static void fill(File folder) {
        try (FileOutputStream out = new FileOutputStream(new File(folder, "r.0.0.mca"))) {
            while (true) out.write(new byte[4096]);
        } catch (IOException full) {
            error("Encountered an unexpected exception");
            full.printStackTrace(System.out);
        }
        System.exit(1);
    }

    static void eula() throws Exception {
        File file = new File("eula.txt");
        if (file.exists() && Files.readString(file.toPath()).contains("eula=true")) {
            info("Done (0.1s)! For help, type \"help\"");
            sleep();
        }
        System.out.println("[12:00:00] [ServerMain/WARN]: Failed to load eula.txt");
        System.out.println("[12:00:00] [ServerMain/INFO]: You need to agree to the EULA in order to run the server. "
                + "Go to eula.txt for more info.");
    }
}
